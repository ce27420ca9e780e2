//! Names of channels, and patterns of them as Redis reads them: which may match one and the same channel.

/// Whether Redis reads the name as a pattern.
pub fn is_pattern(channel: &str) -> bool {
    channel.contains(['*', '?', '['])
}

/// Whether some channel matches both: Redis would deliver its messages twice.
pub fn overlap(one: &str, other: &str) -> bool {
    let (one, other) = (parts(one), parts(other));
    // Both are walked at once, in a table instead of by recursion: names come from outside.
    let mut reach = vec![vec![false; other.len() + 1]; one.len() + 1];
    reach[0][0] = true;
    for i in 0..=one.len() {
        for j in 0..=other.len() {
            if !reach[i][j] {
                continue;
            }
            let (a, b) = (one.get(i).copied(), other.get(j).copied());
            if a == Some(Part::Any) {
                reach[i + 1][j] = true;
            }
            if b == Some(Part::Any) {
                reach[i][j + 1] = true;
            }
            let (Some(a), Some(b)) = (a, b) else { continue };
            match (a, b) {
                (Part::Any, Part::Any) => {}
                (Part::Any, _) => reach[i][j + 1] = true,
                (_, Part::Any) => reach[i + 1][j] = true,
                (Part::Is(x), Part::Is(y)) => reach[i + 1][j + 1] |= x == y,
                _ => reach[i + 1][j + 1] = true,
            }
        }
    }
    reach[one.len()][other.len()]
}

/// One element of a name or pattern; Redis matches bytes. A set such as `[a-c]` counts as "any one byte": better one refusal too
/// many than a message twice.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Is(u8),
    One,
    Any,
}

fn parts(name: &str) -> Vec<Part> {
    let pattern = is_pattern(name);
    let mut parts = Vec::new();
    let mut rest = name.bytes();
    while let Some(byte) = rest.next() {
        parts.push(match byte {
            _ if !pattern => Part::Is(byte),
            b'*' => Part::Any,
            b'?' => Part::One,
            b'\\' => Part::Is(rest.next().unwrap_or(b'\\')),
            b'[' => {
                skip_set(&mut rest);
                Part::One
            }
            other => Part::Is(other),
        });
    }
    parts
}

/// To behind the bracket that ends a set, or to the end of the name, as Redis does.
fn skip_set(rest: &mut impl Iterator<Item = u8>) {
    while let Some(byte) = rest.next() {
        match byte {
            b']' => return,
            b'\\' => _ = rest.next(),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::overlap;

    #[test]
    fn overlapping_names_are_found() {
        for (one, other, both) in [
            ("cascor:training", "cascor:control", false),
            ("cascor:training", "cascor:training", true),
            ("lab:*:training", "lab:a:training", true),
            ("lab:*:training", "lab:a:control", false),
            ("lab:*:training", "lab:*", true),
            ("lab:*:training", "*:b:training", true),
            ("lab:*", "*:lab", true),
            ("lab:?", "lab:[ab]", true),
            ("lab:?", "lab:ab", false),
            ("lab:*:training", "lab:*:control", false),
            ("a*", "b*", false),
            ("a*c", "ab", false),
            ("a?c", "abc", true),
            ("a[xyz]c", "a?c", true),
            ("a[\\]]", "a]", true),
            ("a[b", "ab", true),
            ("a\\*", "a?", true),
            ("a\\*", "ab", false),
            ("a\\b", "ab", false),
            ("*", "cascor:control", true),
            ("*", "**", true),
            ("", "*", true),
            ("lab:??", "lab:é", true),
            ("lab:?", "lab:é", false),
        ] {
            assert_eq!(overlap(one, other), both, "{one} {other}");
            assert_eq!(overlap(other, one), both, "{other} {one}");
        }
    }
}
