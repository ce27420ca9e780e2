//! Enums whose variants each have a word, which is stored, shown or counted: the list of both is declared once. And nouns with numbers.

/// Defines such an enum, with all its variants as `ALL`, the word of a variant (by the method in parentheses), and the variant of a
/// word (by `parse`).
macro_rules! words {
    ($(#[$meta:meta])* pub enum $name:ident($as_word:ident) { $($(#[$doc:meta])* $variant:ident $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$doc])* $variant,)+
        }

        impl $name {
            /// All of them.
            pub const ALL: [Self; [$($word),+].len()] = [$(Self::$variant),+];

            /// The word for it.
            pub const fn $as_word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word),+
                }
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(word: &str) -> Result<Self, String> {
                let found = Self::ALL.into_iter().find(|one| one.$as_word() == word);
                found.ok_or_else(|| format!("one of {}", Self::ALL.map(Self::$as_word).join(", ")))
            }
        }
    };
}

pub(crate) use words;

/// A number with its noun: `1 key`, `2 keys`.
pub fn counted(count: impl Into<u64>, one: &str, many: &str) -> String {
    let count = count.into();
    format!("{count} {}", if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::counted;

    #[test]
    fn a_number_has_its_noun() {
        assert_eq!([0_u64, 1, 2].map(|n| counted(n, "entry", "entries")), ["0 entries", "1 entry", "2 entries"]);
    }
}
