use clap::CommandFactory;

use super::*;

#[test]
fn the_definition_of_arguments_is_valid() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_of_this_build_parses() {
    let run = "6f0c0000-0000-4000-8000-000000000001";
    for line in [
        "run",
        "run --config a.toml --set spool.capacity=1GiB",
        "demo --rate 10000 --runs 8 --for 60s",
        "demo --no-run-id --format msgpack --seed 7 --epochs 50 --max-hidden 3 --channel x",
        "check --print --json",
        "schema plan",
        "schema apply --wait 60s --replication NetworkTopologyStrategy:dc1=3,dc2=2",
        "schema apply --dir schema/pekko",
        "schema verify",
        "schema print",
        "status",
        "status n1 --json",
        "runs --status running --dataset x --limit 5",
        "runs -q lr=0.1 --tag a --tag b --sort config.lr --order asc --archived",
        "runs --archived=any --all --before x",
        "runs --archived any --sort name",
        "runs --since 1h -q adam",
        &format!("show {run}"),
        &format!("metrics {run} --limit 3 --ascending"),
        "runs tag spiral a b --url http://127.0.0.1:8050",
        "runs note spiral text",
        "runs untag spiral a --json",
        "runs rename spiral other",
        "runs archive spiral other",
        "runs unarchive spiral",
        "runs delete spiral other --yes --force",
        &format!("metrics {run} --points 100"),
        &format!("compare {run} other --field val_loss --by time --json"),
        &format!("export {run} -o a.csv --resume --url http://127.0.0.1:8050"),
        &format!("export {run} other --format ndjson --table training_events"),
        "import a.csv b.ndjson.gz - --run spiral --start 2026-11-20 --url http://127.0.0.1:8050",
        "import a.csv --name spiral --format csv --raw --json",
        "tail",
        &format!("tail {run} -n 3 --for 5s"),
        "serve",
        "control pause --wait --timeout 5s --target ingest",
        "control checkpoint --any --url http://127.0.0.1:8050 --token-file t",
        "status -v --watch",
        "status --watch 5 --url http://127.0.0.1:8050",
        "deadletter list --since 1h --url http://127.0.0.1:8050",
        "gaps --since 1h --url http://127.0.0.1:8050",
        "completions zsh",
        "man",
        "man /usr/local/share/man/man1",
        "gaps --run spiral --reason queue_full --since 2026-11-20 --until 2026-11-21 --instance n1 --limit 5 --json",
        "spool status",
        "spool verify",
        "deadletter list --reason too_deep",
        "deadletter show 12 --raw",
        "deadletter export --output x.ndjson --since 2026-11-20 --until 2026-11-21T10:00:00Z",
        "deadletter replay 1 2 3 --channel cascor:training",
        "deadletter drop --all",
        "spool export --pending --output x.ndjson /srv/spool",
        "spool drain /srv/spool --owner n1 --deadletter /srv/deadletter",
        "backup /backup/cascor.backup --overwrite",
        "restore /backup/cascor.backup --force",
        "status --look-in /srv --look-in /mnt",
        "--log-level debug --log-format json --store cassandra --instance a --state-dir d status",
    ] {
        let words = ["cascor-ingest"].into_iter().chain(line.split(' '));
        assert!(Cli::try_parse_from(words).is_ok(), "{line}");
    }
}

/// The words of a command; quotes keep words together, and nothing else of a shell is needed.
fn words_of(command: &str) -> Vec<String> {
    let (mut words, mut quote, mut word) = (Vec::new(), None, None::<String>);
    for character in command.chars() {
        match (quote, character) {
            (Some(open), close) if open == close => quote = None,
            (None, '"' | '\'') => (quote, word) = (Some(character), Some(word.unwrap_or_default())),
            (None, blank) if blank.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    words
}

#[test]
fn every_command_in_the_documents_parses() {
    let mut found = 0;
    for file in [
        "README.md",
        "conf/cascor-ingest.toml",
        "deploy/README.md",
        "deploy/access.md",
        "deploy/systemd/README.md",
        "deploy/systemd/config.toml",
        "deploy/backup.md",
        "deploy/commands.md",
        "deploy/doctor.md",
        "deploy/upgrades.md",
        "schema/README.md",
        "deploy/compose/compose.yaml",
        "deploy/systemd/cascor-ingest.service",
        "deploy/systemd/cascor-ingest@.service",
    ] {
        let text = std::fs::read_to_string(format!("{}/{file}", env!("CARGO_MANIFEST_DIR"))).expect(file);
        for command in text.lines().flat_map(commands_in) {
            let parsed = Cli::try_parse_from(words_of(command));
            assert!(parsed.is_ok(), "{file}: {command}\n{}", parsed.unwrap_err());
            found += 1;
        }
    }
    assert!(found > 15, "found only {found} commands: are they looked for where they are?");
}

/// The commands in a line of a document: from the program's name to the end of the code or the command, to a pipe, a
/// redirection or a comment.
fn commands_in(line: &str) -> Vec<&str> {
    line.split(['`', ';'])
        .flat_map(|code| code.split("&&"))
        .flat_map(|code| code.split(" | "))
        .filter_map(command_in)
        .collect()
}

fn command_in(code: &str) -> Option<&str> {
    let code = code.split(" #").next()?.split(" > ").next()?.trim();
    let starts = ["", "$ ", "ExecStart=/usr/local/bin/", "docker compose -f deploy/compose/compose.yaml exec ingest "];
    let command =
        starts.iter().find_map(|start| code.strip_prefix(start).filter(|rest| rest.starts_with("cascor-ingest ")))?;
    // In a sentence or a picture, other words follow the name of the program.
    let word = command.split_whitespace().nth(1)?;
    Cli::command().find_subcommand(word).map(|_| command)
}

#[test]
fn what_does_not_fit_is_a_usage_error() {
    for line in [
        "",
        "nosuch",
        "demo --runs 0",
        "demo --for 5",
        "show",
        "control",
        "schema",
        "check --set x",
        "doctor x",
        "gapz",
    ] {
        let words = ["cascor-ingest"].into_iter().chain(line.split_whitespace());
        let error = Cli::try_parse_from(words).expect_err(line);
        assert_eq!(error.exit_code(), 2, "{line}");
    }
}

#[test]
fn each_error_has_its_exit_status() {
    for (error, status) in [
        (CliError::Config(Problems(vec!["x".into()])), 78),
        (CliError::Usage("x".into()), 2),
        (CliError::failed("x", "y"), 1),
        (CliError::NegativeAnswer("x".into()), 1),
    ] {
        assert_eq!(error.exit_status(), status, "{error}");
    }
}

#[test]
fn flags_become_keys() {
    let cli = Cli::try_parse_from(["x", "status", "--store", "cassandra", "--set", "writer.batch_rows=7"]).unwrap();
    let flags = cli.global.sources().flags;
    assert!(flags.contains(&("store.kind".into(), "cassandra".into())));
    assert!(flags.contains(&("writer.batch_rows".into(), "7".into())));
}

#[test]
fn only_the_help_of_the_program_lists_the_settings() {
    let mut command = help::command();
    let of_program = command.render_help().to_string();
    for flag in
        ["--config", "--set", "--instance", "--state-dir", "--redis-url", "--store", "--log-level", "--log-format"]
    {
        assert!(of_program.matches(&format!("{flag} <")).count() == 1, "{flag}: {of_program}");
    }
    command.build();
    let mut seen = 0;
    let mut waiting: Vec<clap::Command> = command.get_subcommands().cloned().collect();
    while let Some(mut command) = waiting.pop() {
        if command.get_name() == "help" {
            continue;
        }
        waiting.extend(command.get_subcommands().cloned());
        for shown in [command.render_help().to_string(), command.render_long_help().to_string()] {
            assert!(!shown.contains("--log-format") && shown.contains("see `cascor-ingest --help`"), "{shown}");
            assert!(shown.contains("--json"), "{shown}");
        }
        seen += 1;
    }
    assert!(seen > 30, "{seen}");
    let hidden = |command: &clap::Command| command.get_arguments().filter(|arg| arg.is_hide_set()).count();
    assert_eq!(hidden(&help::visible()), 0, "completions and manual pages have all of them");
}

/// Users who installed the program have no repository.
#[test]
fn no_help_names_a_file_of_the_repository() {
    let mut waiting = vec![help::command()];
    while let Some(mut command) = waiting.pop() {
        waiting.extend(command.get_subcommands().cloned());
        for shown in [command.render_help().to_string(), command.render_long_help().to_string()] {
            for place in [".md", "deploy/", "schema/", "conf/", "tests/", "src/"] {
                assert!(!shown.contains(place), "{}: {place} in {shown}", command.get_name());
            }
        }
    }
}
