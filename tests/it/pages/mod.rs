//! The pages of documentation: what they name exists, and what the page of messages says is what becomes of its examples.

mod decoded;
mod names;
mod page;
mod paths;
mod stored;
