use std::fs;

use super::*;

const DAY: Micros = 24 * 3_600 * 1_000_000;
const NOW: Micros = 1_000 * DAY;

fn entry(issued: Micros, id: &str) -> Entry {
    Entry { issued, id: id.into() }
}

#[test]
fn the_oldest_session_of_a_token_ends_for_one_too_many() {
    let mut ledger = Ledger::open(None, 2, DAY);
    let began = ["a", "b", "c"].map(|id| ledger.begin("ann", id, NOW));
    assert_eq!(began[2].1, [entry(NOW, "a")]);
    let ended = ["a", "b", "c"].iter().zip(&began).map(|(id, (at, _))| ledger.is_ended("ann", &entry(*at, id)));
    assert_eq!(ended.collect::<Vec<_>>(), [true, false, false]);
    assert!(!ledger.is_ended("bob", &entry(NOW, "a")), "the cap is of each token");
}

#[test]
fn what_was_signed_out_stays_ended_however_many_follow() {
    let mut ledger = Ledger::open(None, 8, DAY);
    let mut all = Vec::new();
    for n in 0..2 * ENDED_MAX {
        let id = n.to_string();
        let (issued, _) = ledger.begin("ann", &id, NOW + n as Micros);
        all.push(entry(issued, &id));
        ledger.end("ann", all[n].clone(), NOW);
    }
    let (open, _) = ledger.begin("ann", "open", NOW);
    assert!(all.iter().all(|session| ledger.is_ended("ann", session)));
    assert!(!ledger.is_ended("ann", &entry(open, "open")));
    assert!(ledger.accounts.tokens["ann"].ended.len() <= ENDED_MAX);
}

#[test]
fn a_token_that_was_taken_out_and_put_back_has_no_session_of_before() {
    let mut ledger = Ledger::open(None, 8, DAY);
    ledger.keep_only(&["ann".into(), "eve".into()], NOW);
    let (issued, _) = ledger.begin("ann", "a", NOW);
    ledger.keep_only(&["bob".into()], NOW + 5);
    ledger.keep_only(&["ann".into(), "bob".into(), "eve".into()], NOW + 10);
    assert!(ledger.is_ended("ann", &entry(issued, "a")));
    assert!(ledger.is_ended("eve", &entry(NOW + 1, "of another daemon")));
    assert!(!ledger.is_ended("bob", &entry(NOW + 1, "of another daemon")));
    let (again, _) = ledger.begin("ann", "b", NOW);
    assert!(again > NOW + 5 && !ledger.is_ended("ann", &entry(again, "b")), "also when the clock was set back");
}

#[test]
fn processes_that_share_the_directory_share_it_and_a_broken_file_ends_everything() {
    let dir = tempfile::tempdir().unwrap();
    let now = crate::units::now();
    let save = |ledger: &mut Ledger| {
        let saved = ledger.unsaved().unwrap().save();
        assert!(saved.is_some());
        ledger.saved(saved);
        assert!(ledger.unsaved().is_none(), "nothing has changed since");
    };
    let mut one = Ledger::open(Some(dir.path()), 8, DAY);
    let mut other = Ledger::open(Some(dir.path()), 8, DAY);
    let (a, _) = one.begin("ann", "a", now);
    save(&mut one);
    let (b, _) = other.begin("ann", "b", now);
    save(&mut other);
    one.end("ann", entry(b, "b"), now);
    save(&mut one);
    assert!(!other.is_ended("ann", &entry(b, "b")), "not read yet");
    // Both write at once, and no change is lost.
    let (c, _) = other.begin("ann", "c", now);
    other.end("ann", entry(c, "c"), now);
    save(&mut other);
    assert!(other.is_ended("ann", &entry(b, "b")));
    let (file, seen) = one.file().unwrap();
    one.merge_file(read(&file, seen).expect("it is another version"));
    assert!(one.is_ended("ann", &entry(c, "c")));
    let (file, seen) = one.file().unwrap();
    assert!(read(&file, seen).is_none(), "it is the same version");
    assert!(other.is_ended("ann", &entry(b, "b")) && !other.is_ended("ann", &entry(a, "a")));
    let later = Ledger::open(Some(dir.path()), 8, DAY);
    assert!(later.is_ended("ann", &entry(c, "c")));
    assert!(later.is_ended("ann", &entry(b, "b")) && !later.is_ended("ann", &entry(a, "a")));
    fs::write(dir.path().join(FILE_NAME), "{").unwrap();
    assert!(Ledger::open(Some(dir.path()), 8, DAY).is_ended("ann", &entry(a, "a")));
}

#[test]
fn what_is_written_can_be_read_again_however_many_tokens_there_are() {
    let dir = tempfile::tempdir().unwrap();
    let now = crate::units::now();
    let mut ledger = Ledger::open(Some(dir.path()), 8, DAY);
    for token in 0..400 {
        let account = ledger.accounts.tokens.entry(format!("{token:064}")).or_default();
        account.ended = (0..ENDED_MAX as Micros).map(|n| entry(now - 1_000 + n, &format!("{n:064}"))).collect();
        account.open = vec![entry(now, "open")];
    }
    ledger.dirty = true;
    let saved = ledger.unsaved().unwrap().save();
    ledger.saved(Some(saved.expect("it is written")));
    let later = Ledger::open(Some(dir.path()), 8, DAY);
    assert_eq!(later.accounts.ended_until, 0, "it was read");
    for token in ["0", "399"].map(|token| format!("{token:0>64}")) {
        assert!(!later.is_ended(&token, &entry(now, "open")));
        let ended = (0..ENDED_MAX as Micros).map(|n| entry(now - 1_000 + n, &format!("{n:064}")));
        assert!(ended.into_iter().all(|session| later.is_ended(&token, &session)));
    }
}
