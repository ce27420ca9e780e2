//! Random histories against a model: what was durable and not committed comes back, in order, and nothing else.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Append(u64),
    Sync,
    FailedSync,
    Read,
    Commit(u8),
    Reopen,
    /// The process dies; so many bytes of what it was writing have reached the disk.
    Crash(u8),
    Flip(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..40u64).prop_map(Step::Append),
        4 => Just(Step::Sync),
        1 => Just(Step::FailedSync),
        3 => Just(Step::Read),
        2 => any::<u8>().prop_map(Step::Commit),
        1 => Just(Step::Reopen),
        2 => any::<u8>().prop_map(Step::Crash),
        1 => any::<u16>().prop_map(Step::Flip),
    ]
}

struct Model {
    place: Place,
    opened: Option<Opened>,
    durable: u64,
    committed: u64,
    read: u64,
    flips: u64,
}

impl Model {
    fn opened(&mut self) -> &mut Opened {
        self.opened.as_mut().unwrap()
    }

    fn reopen(&mut self) {
        self.opened = None;
        let opened = self.place.open();
        let (first, next) = (opened.recovery.first_uncommitted, opened.recovery.next);
        assert!(first <= self.committed, "committed {first} is more than was confirmed");
        // A flip in the last record makes it a torn end.
        assert!(next + self.flips >= self.durable, "{next} of {} durable records, {} flips", self.durable, self.flips);
        (self.read, self.durable) = (first, next);
        self.opened = Some(opened);
    }

    /// Leaves the directory as a killed process would.
    fn crash(&mut self, torn: u8) {
        let copy = self.place.dir.path().join("copy");
        let target = self.place.path().to_owned();
        let _ = fs::remove_dir_all(&copy);
        fs::create_dir(&copy).unwrap();
        for entry in fs::read_dir(&target).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file()) {
            // The committer may remove a segment meanwhile.
            let _ = fs::copy(entry.path(), copy.join(entry.file_name()));
        }
        self.opened = None;
        fs::remove_dir_all(&target).unwrap();
        fs::rename(&copy, &target).unwrap();
        if let Some(last) = self.place.segments().last() {
            let mut bytes = fs::read(last).unwrap();
            bytes.extend((0..torn).map(|n| n.wrapping_mul(37)));
            fs::write(last, bytes).unwrap();
        }
        self.reopen();
    }

    fn flip(&mut self, at: u16) {
        self.opened = None;
        let segments = self.place.segments();
        if let Some(path) = segments.get(usize::from(at) % segments.len().max(1)) {
            let mut bytes = fs::read(path).unwrap();
            let bit = usize::from(at) * 31 % (bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            fs::write(path, bytes).unwrap();
            self.flips += 1;
        }
        self.reopen();
    }

    async fn read(&mut self) {
        let (mut read, end) = (self.read, self.opened().view.end());
        let mut lost = 0;
        while read < end {
            let opened = self.opened();
            let Ok(chunk) = tokio::time::timeout(Duration::from_millis(20), opened.reader.next()).await else {
                lost += end - read;
                break;
            };
            assert_eq!(chunk.first(), read + chunk.lost(), "contiguous but for what is reported lost");
            lost += chunk.lost();
            for record in chunk.records() {
                assert_eq!(record.payload, payload(record.offset));
            }
            read = chunk.end();
        }
        assert!(lost <= self.flips, "{lost} records lost by {} flips", self.flips);
        self.read = end;
    }

    async fn apply(&mut self, step: Step) {
        match step {
            Step::Append(count) => append(self.opened(), count),
            Step::Sync => self.durable = self.opened().appender.sync().durable,
            Step::FailedSync => {
                self.place.disk.faults.syncs.store(1, Ordering::SeqCst);
                self.durable = self.opened().appender.sync().durable;
                self.place.disk.faults.syncs.store(0, Ordering::SeqCst);
            }
            Step::Read => self.read().await,
            Step::Commit(part) => {
                let next = self.read * u64::from(part) / 255;
                self.committed = self.committed.max(next);
                self.opened().committer.commit(next);
            }
            Step::Reopen => {
                self.durable = self.opened().appender.sync().durable;
                self.reopen();
            }
            Step::Crash(torn) => self.crash(torn),
            Step::Flip(at) => self.flip(at),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, max_shrink_iters: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_history_loses_what_was_durable(steps in prop::collection::vec(step(), 1..25)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let place = Place::new();
            let opened = Some(place.open());
            let mut model = Model { place, opened, durable: 0, committed: 0, read: 0, flips: 0 };
            for step in steps {
                model.apply(step).await;
            }
            model.read().await;
        });
    }
}
