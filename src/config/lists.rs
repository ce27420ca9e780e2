//! Lists that are given as one text: by the environment, by a flag, by a variable of a YAML file.

/// Hosts hold neither commas nor blanks nor semicolons, so that any of these separates them.
const HOSTS_KEY: &str = "store.cassandra.contact_points";

/// The items of a list: a JSON list of texts, else what commas separate.
///
/// # Errors
/// What is read in no way that is certainly meant; the item is named.
pub fn read(key: &str, text: &str) -> Result<Vec<String>, String> {
    let text = text.trim();
    // A pattern of channels may begin with a bracket, too, but is no JSON.
    if text.starts_with('[')
        && let Ok(items) = serde_json::from_str::<Vec<String>>(text)
    {
        return Ok(items);
    }
    let separates = |c: char| c == ',' || key == HOSTS_KEY && (c == ';' || c.is_whitespace());
    let items: Vec<String> =
        text.split(separates).map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect();
    // A channel may be called `a b` or `a;b`, but in a list that mostly means two channels.
    if key.ends_with("_channels")
        && let Some(item) =
            items.iter().find(|item| item.contains([';', '"', '\'']) || item.contains(char::is_whitespace))
    {
        return Err(format!(
            "holds `{}`; separate channels by commas, or write a JSON list when that is the name of one",
            item.escape_debug()
        ));
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANNELS: &str = "redis.training_channels";

    #[test]
    fn a_list_is_read_however_it_is_separated() {
        for (key, text, items) in [
            (HOSTS_KEY, "c1,c2", &["c1", "c2"][..]),
            (HOSTS_KEY, " c1 , c2,", &["c1", "c2"]),
            (HOSTS_KEY, "c1;c2", &["c1", "c2"]),
            (HOSTS_KEY, "c1 c2\n", &["c1", "c2"]),
            (HOSTS_KEY, "c1:9043; [::1]:9042", &["c1:9043", "[::1]:9042"]),
            (HOSTS_KEY, "[\"c1\",\"c2\"]", &["c1", "c2"]),
            (HOSTS_KEY, "[::1]:9042", &["[::1]:9042"]),
            (HOSTS_KEY, "[\"c1\",", &["[\"c1\""]),
            (HOSTS_KEY, "", &[]),
            (HOSTS_KEY, "[]", &[]),
            (CHANNELS, "a, lab:*:b", &["a", "lab:*:b"]),
            (CHANNELS, "[\"a b\", \"c;d\"]", &["a b", "c;d"]),
            (CHANNELS, "[ab]*,c", &["[ab]*", "c"]),
            ("spool.orphan_search_dirs", "/srv/my spools,/b", &["/srv/my spools", "/b"]),
        ] {
            assert_eq!(read(key, text).unwrap(), items, "{key} {text}");
        }
    }

    #[test]
    fn a_list_of_channels_that_is_separated_otherwise_is_refused_by_name() {
        for (text, item) in [("a;b", "`a;b`"), ("a b,c", "`a b`"), ("['a','b']", "a"), ("[\"a\",", "a")] {
            let problem = read(CHANNELS, text).unwrap_err();
            assert!(problem.contains(item) && problem.contains("commas"), "{text}: {problem}");
        }
    }
}
