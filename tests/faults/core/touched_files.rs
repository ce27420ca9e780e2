//! Changes of a spool's files by other users and programs.

use std::path::{Path, PathBuf};

use crate::{
    harness::{Budget, Tried, each},
    image::{DIR, Original, goes_on, open},
    random::Random,
    spool::{
        SpoolError,
        segment::{HEADER, Header},
    },
};

const SEGMENTS: usize = 6;
const BYTES: usize = 3_000;

/// One to three of: deleted, renamed to a foreign name, given another segment's number, linked, copied, and foreign files beside them.
/// Records of untouched files come back; all others are counted.
pub fn touched(budget: &Budget) -> Tried {
    let original = Original::new(budget.seed, SEGMENTS, BYTES);
    let foreign = Original::new(budget.seed + 1, SEGMENTS, BYTES);
    let count = each(budget, 20_000 * budget.times, |number| {
        let mut random = Random::new(budget.seed ^ number << 5);
        let sim = original.sim.copy();
        let mut gone = [false; SEGMENTS];
        for _ in 0..=random.below(3) {
            let segment = random.below(SEGMENTS);
            let path = &original.segments[segment].0;
            let bytes = &original.segments[segment].1;
            let action = random.below(7);
            if budget.only.is_some() {
                println!("{action} {segment}");
            }
            match action {
                0 => {
                    sim.delete(path);
                    gone[segment] = true;
                }
                1 => {
                    sim.edit(&path.with_extension("seg.bak"), |content| content.clone_from(bytes));
                    sim.delete(path);
                    gone[segment] = true;
                }
                2 => {
                    // Under the number of a place in the middle of it, or of another.
                    let other = random.below(original.places.len()) as u64;
                    let name = Path::new(DIR).join(format!("{other:020}-007.seg"));
                    sim.edit(&name, |content| content.clone_from(bytes));
                    if random.coin() {
                        sim.delete(path);
                        gone[segment] = true;
                    }
                }
                3 if !gone[segment] => {
                    let name = path.to_string_lossy().replace("-000", "-001");
                    sim.link(path, Path::new(&name));
                }
                4 => {
                    let (name, content) = &foreign.segments[random.below(SEGMENTS)];
                    let name = PathBuf::from(name.to_string_lossy().replace("-000", *random.pick(&["-002", "-003"])));
                    sim.edit(&name, |bytes| bytes.clone_from(content));
                }
                5 => {
                    let name = random.pick(&[
                        "notes.txt",
                        "00000000000000000001-000.seg.swp",
                        "checkpoint.tmp",
                        "1-0.seg",
                        "x.tmp",
                    ]);
                    sim.edit(&Path::new(DIR).join(name), |bytes| *bytes = b"mine".to_vec());
                }
                _ => {
                    // Only the last digit of the name differs.
                    let mut junk = vec![0; random.below(2_000)];
                    random.fill(&mut junk);
                    let offset = random.below(original.places.len() + 100);
                    sim.edit(&Path::new(DIR).join(format!("{offset:020}-099.seg")), |bytes| *bytes = junk);
                }
            }
        }
        let intact: Vec<bool> = original.places.iter().map(|(segment, _)| !gone[*segment]).collect();
        original.check_files(&sim, &intact);
        goes_on(&sim, &original.config);
    });
    Tried { count, notes: String::new() }
}

/// A newer format, wherever a newer program writes it, is refused by name, and nothing is changed.
pub fn newer(budget: &Budget) -> Tried {
    let original = Original::new(budget.seed, 3, BYTES);
    let mut count = 0;
    for (name, magic) in [
        (Path::new(DIR).join("checkpoint"), *b"CASCHECK"),
        (original.segments[0].0.clone(), *b"CASSPOOL"),
        (original.segments[2].0.clone(), *b"CASSPOOL"),
    ] {
        let sim = original.sim.copy();
        let mut header = Header::encode(magic, uuid::Uuid::from_u128(9), 0);
        header[8] = 2;
        let crc = crc32c::crc32c(&header[..36]);
        header[36..].copy_from_slice(&crc.to_le_bytes());
        sim.edit(&name, |bytes| bytes[..HEADER].copy_from_slice(&header));
        let before: Vec<_> = sim.names(Path::new(DIR)).into_iter().map(|name| (sim.get(&name), name)).collect();
        match open(&sim, &original.config) {
            Err(error @ SpoolError::Newer { version: 2, .. }) => {
                assert!(
                    error
                        .to_string()
                        .starts_with(&format!("`{}` has format 2, and this program knows 1 at most", name.display()))
                );
            }
            other => panic!("{other:?}"),
        }
        let after: Vec<_> = sim.names(Path::new(DIR)).into_iter().map(|name| (sim.get(&name), name)).collect();
        assert!(before.iter().zip(&after).all(|(before, after)| before == after || before.1.ends_with("lock")));
        count += 1;
    }
    Tried { count, notes: String::new() }
}
