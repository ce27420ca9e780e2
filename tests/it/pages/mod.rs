//! The documentation: paths, tests and names on it exist, and its example messages give the results that it shows.

mod decoded;
mod names;
mod page;
mod paths;
mod stored;
