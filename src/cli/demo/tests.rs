use super::*;

fn args(runs: u16, no_run_id: bool, format: Format, duration: Option<Duration>) -> Args {
    Args {
        rate: 50.0,
        runs,
        epochs: 30,
        max_hidden: 2,
        channel: None,
        stream: None,
        seed: Some(1),
        no_run_id,
        format,
        duration,
    }
}

fn drain(demo: &mut Demo, due: usize) -> Vec<Value> {
    let mut burst = Vec::new();
    demo.fill_burst(&mut burst, due);
    burst.iter().map(|bytes| serde_json::from_slice(bytes).unwrap()).collect()
}

#[test]
fn each_run_counts_its_own_messages() {
    let mut demo = Demo::new(args(3, false, Format::Json, None));
    let messages = drain(&mut demo, 10_000);
    assert!(demo.is_over());
    for run in &demo.runs {
        let own: Vec<_> = messages.iter().filter(|message| message["run_id"] == run.run_id).collect();
        assert!(own.iter().enumerate().all(|(seq, message)| message["seq"] == seq), "contiguous from 0");
        assert_eq!((&own[0]["type"], &own[own.len() - 1]["type"]), (&"training_start".into(), &"training_end".into()));
    }
    let times: Vec<_> = messages.iter().map(|message| message["timestamp"].as_str().unwrap()).collect();
    assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "no two events at one time");
}

#[test]
fn simple_trainers_send_no_run_id_and_some_send_msgpack() {
    let mut demo = Demo::new(args(1, true, Format::Json, None));
    assert!(drain(&mut demo, 100).iter().all(|message| message.get("run_id").is_none()));
    let mut demo = Demo::new(args(1, false, Format::Msgpack, None));
    let mut burst = Vec::new();
    demo.fill_burst(&mut burst, 5);
    let message: Value = rmp_serde::from_slice(&burst[0]).unwrap();
    assert_eq!(message["type"], "training_start");
}

#[test]
fn a_paused_trainer_says_so_and_waits() {
    let mut demo = Demo::new(args(1, false, Format::Json, None));
    drain(&mut demo, 10);
    demo.handle_command(Command::Pause);
    demo.handle_command(Command::Pause);
    let said = drain(&mut demo, 100);
    assert_eq!(said.iter().filter(|message| message["data"]["status"] == "Paused").count(), 1);
    assert!(drain(&mut demo, 100).is_empty() && !demo.is_over());
    demo.handle_command(Command::Resume);
    assert!(drain(&mut demo, 100).len() > 5);
}

#[test]
fn reset_begins_another_run_and_stop_ends() {
    let mut demo = Demo::new(args(2, false, Format::Json, None));
    drain(&mut demo, 20);
    demo.handle_command(Command::Reset);
    let messages = drain(&mut demo, 40);
    let of = |kind: &str| messages.iter().filter(|message| message["type"] == kind).count();
    assert_eq!((of("training_end"), of("training_start"), demo.started), (2, 2, 4));
    demo.handle_command(Command::Stop);
    let rest = drain(&mut demo, 10_000);
    assert_eq!(rest.iter().filter(|message| message["data"]["status"] == "stopped").count(), 2);
    assert!(demo.is_over());
}

#[test]
fn with_a_duration_runs_follow_each_other() {
    let mut demo = Demo::new(args(1, false, Format::Json, Some(Duration::from_secs(1))));
    let starts = drain(&mut demo, 500).iter().filter(|message| message["type"] == "training_start").count();
    assert!(starts > 2 && !demo.is_over());
}
