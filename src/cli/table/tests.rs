use super::*;

static COLUMNS: [Column; 5] = [
    Column::key("RUN"),
    Column::ranked("NAME", 1),
    Column::ranked("PHASE", 2),
    Column::key("LOSS"),
    Column::ranked("TIME", 3),
];

fn row(name: &str, loss: f64, time: &str) -> Vec<Cell> {
    vec![short_id("6f0c0000-1"), text(Some(name)), text(None), number(Some(loss)), Cell::Whole(time.into())]
}

fn lines(rows: &[Vec<Cell>], limit: Option<usize>) -> Vec<String> {
    Table::within(COLUMNS.to_vec(), limit).lines(rows)
}

#[test]
fn a_table_fits_and_its_numbers_are_whole() {
    let rows = [row("日本語の長い名前のある実験", 0.712_346, "2026-11-20 10:15:00"), row("x", -123_456.0, "")];
    for (limit, headers, has_time) in [(60, "RUN       NAME", true), (40, "RUN       NAME", false)] {
        let found = lines(&rows, Some(limit));
        assert!(found.iter().all(|line| width::columns(line) <= limit), "{found:#?}");
        assert!(found[0].starts_with(headers) && found[0].contains("TIME") == has_time, "{found:#?}");
        assert!(found[1].starts_with("6f0c0000  日本") && found[1].contains("…"), "{found:#?}");
        assert!(found[1].contains("  0.712346") && found[2].contains("  -123456"), "{found:#?}");
    }
}

#[test]
fn a_program_gets_every_column_uncut() {
    let name = "n".repeat(300);
    let found = lines(&[row(&name, 0.5, "")], None);
    assert!(found[0].contains("PHASE") && found[1].contains(&name), "{found:?}");
}

#[test]
fn one_long_name_does_not_widen_a_table() {
    let found = lines(&[row(&"n".repeat(300), 0.5, "2026-11-20 10:15:00")], Some(200));
    assert!(width::columns(&found[1]) < 90, "{found:?}");
}

#[test]
fn rows_that_need_other_columns_get_new_headers() {
    let mut table = Table { reserved: RESERVED, ..Table::within(COLUMNS.to_vec(), Some(60)) };
    assert_eq!(table.lines(&[row("", 0.5, "")]).len(), 2);
    assert_eq!(table.lines(&[row("", 0.125, "")]).len(), 1, "the column has room for it");
    assert_eq!(table.lines(&[row("a", 0.125, "")]).len(), 2, "a name needs a column");
    assert_eq!(table.lines(&[row("a", -0.000_123_456, "")]).len(), 2, "a wider number");
    assert_eq!(table.lines(&[row("a", 0.1, "2026-11-20 10:15:00")]).len(), 2);
    assert_eq!(table.lines(&[row("a", 0.1, "2026-11-20 10:15:00")]).len(), 1);
    assert!(table.left_out().is_empty());
    let mut narrow = Table::within(COLUMNS.to_vec(), Some(40));
    assert_eq!(narrow.lines(&[row("name", 0.5, "2026-11-20 10:15:00")]).len(), 2);
    assert_eq!(narrow.left_out(), ["TIME"]);
    assert_eq!(narrow.lines(&[row("name", 0.5, "2026-11-20 10:15:00")]).len(), 1, "a column left out stays so");
}

#[test]
fn fields_are_wrapped_beside_or_below_their_names() {
    let id = "6f0c0000-0000-4000-8000-000000000001";
    let fields = [
        ("run id".to_owned(), Cell::Whole(id.into())),
        ("notes".into(), text(Some("a note of several words that is longer than a line of forty columns"))),
        (format!("config.{}", "k".repeat(50)), number(Some(0.25))),
        ("last".into(), number(Some(0.5))),
    ];
    let found = field_lines(&fields, Some(40));
    assert!(found.iter().all(|line| width::columns(line) <= 40), "{found:#?}");
    assert!(found.contains(&format!("  {id}")), "{found:#?}");
    assert!(found.contains(&"notes   a note of several words that is".to_owned()), "{found:#?}");
    assert!(found.contains(&"        longer than a line of forty".to_owned()), "{found:#?}");
    assert!(found.contains(&"  0.25".to_owned()) && found.contains(&"last    0.5".to_owned()), "{found:#?}");
    assert_eq!(field_lines(&fields, None).len(), 4, "a line each for a program");
}

#[test]
fn a_name_that_a_row_needs_is_legible_before_other_columns_are_shown() {
    let columns = vec![Column::name("METRIC"), Column::key("LAST"), Column::ranked("BEST", 1)];
    let rows = [vec![text(Some("validation_accuracy")), number(Some(0.25)), number(Some(0.333_333_3))]];
    for (limit, row) in [
        (40, "validation_accuracy  0.25  0.333333"),
        (32, "validation_accu…  0.25  0.333333"),
        (31, "validation_accuracy  0.25"),
        (22, "validation_accu…  0.25"),
    ] {
        let found = Table::within(columns.clone(), Some(limit)).lines(&rows);
        assert_eq!(found[1], row, "{limit}");
    }
}
