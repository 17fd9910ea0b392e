//! JSON lines and CSV: columns from a sample of a file's first lines.
//!
//! A type that fits every sampled value is a guess about the others; the confidence says so.

use super::rows::Rows;
use super::sniff::{Head, extension};
use super::types::{Field, Schema, Type};

/// Most lines that are looked at.
const LINES: usize = 200;
/// Most columns of a text file.
const COLUMNS_MAX: usize = 4096;

/// The complete lines of a sample: the last one counts only when the whole file is there.
fn lines(head: &Head) -> Option<Vec<&str>> {
    let text = match std::str::from_utf8(&head.bytes) {
        Ok(text) => text,
        // The sample may end in the middle of a character.
        Err(error) if !head.whole && error.error_len().is_none() => {
            std::str::from_utf8(&head.bytes[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    if text.contains('\0') {
        return None;
    }
    let complete = match text.rfind('\n') {
        Some(at) if !head.whole => &text[..at],
        _ if head.whole => text,
        _ => return None,
    };
    let complete = complete.strip_prefix('\u{feff}').unwrap_or(complete);
    let lines: Vec<&str> = complete
        .lines()
        .filter(|line| !line.trim().is_empty())
        .take(LINES)
        .collect();
    (!lines.is_empty()).then_some(lines)
}

/// The columns of JSON lines; none when a line is not one JSON object.
pub(super) fn json_lines(head: &Head) -> Option<Schema> {
    let lines = lines(head)?;
    if !lines[0].trim_start().starts_with('{') {
        return None;
    }
    let mut fields: Vec<Field> = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).ok()?;
        let absent = fields
            .iter_mut()
            .filter(|field| !object.contains_key(&field.name));
        absent.for_each(|field| field.nullable = true);
        for (name, value) in &object {
            if let Some(field) = fields.iter_mut().find(|field| field.name == *name) {
                widen(field, value);
                continue;
            }
            if fields.len() == COLUMNS_MAX {
                return None;
            }
            fields.push(Field {
                name: name.clone(),
                data_type: type_of(value),
                nullable: at > 0 || value.is_null(),
            });
        }
    }
    Some(Schema { fields })
}

fn type_of(value: &serde_json::Value) -> Type {
    use serde_json::Value;
    match value {
        Value::Null => Type::Unknown("null".to_owned()),
        Value::Bool(_) => Type::Boolean,
        Value::Number(number) if number.is_i64() => Type::Int64,
        Value::Number(_) => Type::Float64,
        Value::String(_) => Type::String,
        Value::Array(items) => {
            let data_type = items
                .first()
                .map_or(Type::Unknown("null".to_owned()), type_of);
            let element = Field {
                name: "element".to_owned(),
                data_type,
                nullable: true,
            };
            Type::List(Box::new(element))
        }
        Value::Object(members) => Type::Struct(
            members
                .iter()
                .take(COLUMNS_MAX)
                .map(|(name, value)| Field {
                    name: name.clone(),
                    data_type: type_of(value),
                    nullable: true,
                })
                .collect(),
        ),
    }
}

fn widen(field: &mut Field, value: &serde_json::Value) {
    if value.is_null() {
        field.nullable = true;
        return;
    }
    let found = type_of(value);
    field.data_type = match (&field.data_type, found) {
        (known, found) if *known == found => return,
        (Type::Unknown(_), found) => found,
        (Type::Int64, Type::Float64) | (Type::Float64, Type::Int64) => Type::Float64,
        (Type::List(known), Type::List(_)) => Type::List(known.clone()),
        (Type::Struct(known), Type::Struct(_)) => Type::Struct(known.clone()),
        _ => Type::String,
    };
}

/// The first rows of JSON lines; none when a line is not one JSON object.
pub(super) fn json_rows(head: &Head, limit: usize) -> Option<Rows> {
    let Schema { fields } = json_lines(head)?;
    let lines = lines(head)?;
    let row = |line: &&str| {
        let mut object: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(line).ok()?;
        let mut value = |field: &Field| object.remove(&field.name).unwrap_or_default();
        Some(fields.iter().map(&mut value).collect())
    };
    let rows = lines.iter().take(limit).map(row).collect::<Option<_>>()?;
    Some(Rows {
        fields,
        rows,
        note: None,
    })
}

/// The columns of a CSV file with a head line; none when lines have different numbers of columns.
pub(super) fn csv(head: &Head) -> Option<Schema> {
    csv_table(head).map(|(schema, _)| schema)
}

/// The first rows of a CSV file. Cells are texts: how they are meant is a guess.
pub(super) fn csv_rows(head: &Head, limit: usize) -> Option<Rows> {
    let (schema, cells) = csv_table(head)?;
    let row = |cells: Vec<String>| cells.into_iter().map(serde_json::Value::from).collect();
    Some(Rows {
        fields: schema.fields,
        rows: cells.into_iter().take(limit).map(row).collect(),
        note: None,
    })
}

/// The columns of a CSV file, and its lines without the head.
fn csv_table(head: &Head) -> Option<(Schema, Vec<Vec<String>>)> {
    let lines = lines(head)?;
    let tab = extension(&head.path) == "tsv";
    let candidates: &[char] = if tab { &['\t'] } else { &[',', '\t', ';', '|'] };
    let rows = candidates.iter().find_map(|delimiter| {
        let rows: Option<Vec<Vec<String>>> =
            lines.iter().map(|line| split(line, *delimiter)).collect();
        rows.filter(|rows| rows[0].len() > 1 && rows.iter().all(|row| row.len() == rows[0].len()))
    });
    let rows = match rows {
        Some(rows) => rows,
        None if extension(&head.path) == "csv" => lines
            .iter()
            .map(|line| split(line, ',').filter(|row| row.len() == 1))
            .collect::<Option<_>>()?,
        None => return None,
    };
    let (first, body) = rows.split_first()?;
    if first.len() > COLUMNS_MAX {
        return None;
    }
    let headed = !body.is_empty()
        && first
            .iter()
            .all(|cell| !cell.is_empty() && cell_type(cell) == Type::String);
    let body = if headed { body } else { &rows[..] };
    let fields = (0..first.len()).map(|column| {
        let cells = || body.iter().map(move |row| row[column].as_str());
        Field {
            name: if headed {
                first[column].clone()
            } else {
                format!("column{column}")
            },
            data_type: cells()
                .filter(|cell| !cell.is_empty())
                .map(cell_type)
                .reduce(join)
                .unwrap_or(Type::String),
            nullable: cells().any(str::is_empty),
        }
    });
    let schema = Schema {
        fields: fields.collect(),
    };
    let skipped = usize::from(headed);
    Some((schema, rows.into_iter().skip(skipped).collect()))
}

/// The cells of a line; none when a quote is open at its end (a cell with a line break).
fn split(line: &str, delimiter: char) -> Option<Vec<String>> {
    let (mut cells, mut cell, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                cell.push('"');
            }
            '"' => quoted = !quoted,
            c if c == delimiter && !quoted => cells.push(std::mem::take(&mut cell)),
            c => cell.push(c),
        }
    }
    cells.push(cell);
    (!quoted).then_some(cells)
}

fn cell_type(cell: &str) -> Type {
    if cell.parse::<i64>().is_ok() {
        Type::Int64
    } else if cell.parse::<f64>().is_ok() && cell.bytes().any(|byte| byte.is_ascii_digit()) {
        Type::Float64
    } else if cell.eq_ignore_ascii_case("true") || cell.eq_ignore_ascii_case("false") {
        Type::Boolean
    } else {
        Type::String
    }
}

fn join(one: Type, other: Type) -> Type {
    match (one, other) {
        (one, other) if one == other => one,
        (Type::Int64, Type::Float64) | (Type::Float64, Type::Int64) => Type::Float64,
        _ => Type::String,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn head(path: &str, text: &str, whole: bool) -> Head {
        Head {
            path: path.to_owned(),
            bytes: Bytes::copy_from_slice(text.as_bytes()),
            whole,
        }
    }

    fn types(schema: &Schema) -> Vec<(&str, &Type, bool)> {
        schema
            .fields
            .iter()
            .map(|f| (f.name.as_str(), &f.data_type, f.nullable))
            .collect()
    }

    // A column typed from its first line alone fails on the second.
    #[test]
    fn json_columns_fit_every_line() {
        let text = "{\"a\":1,\"b\":\"x\"}\n{\"a\":2.5,\"c\":null}\n{\"a\":3,\"b\":\"y\",\"c\":true}\n{\"cut";
        let schema = json_lines(&head("x.jsonl", text, false)).unwrap();
        let expected = [
            ("a", &Type::Float64, false),
            ("b", &Type::String, true),
            ("c", &Type::Boolean, true),
        ];
        assert_eq!(types(&schema), expected);
        assert!(json_lines(&head("x.jsonl", text, true)).is_none());
        assert!(json_lines(&head("x", "[1]\n", true)).is_none());
    }

    // A head line that is taken as data makes every column a text.
    #[test]
    fn csv_has_a_head_and_types() {
        let schema = csv(&head(
            "x.csv",
            "id,name,price\n1,\"a, b\",1.5\n2,,2\n",
            true,
        ))
        .unwrap();
        let expected = [
            ("id", &Type::Int64, false),
            ("name", &Type::String, true),
            ("price", &Type::Float64, false),
        ];
        assert_eq!(types(&schema), expected);
        let bare = csv(&head("x.csv", "1,2\n3,4\n", true)).unwrap();
        assert_eq!(bare.fields[0].name, "column0");
        assert!(csv(&head("notes.txt", "one, two\nthree\n", true)).is_none());
    }

    proptest! {
        // The bytes are a stranger's.
        #[test]
        fn any_text_is_answered(bytes in proptest::collection::vec(any::<u8>(), 0..300), whole: bool) {
            let head = Head { path: "x.csv".to_owned(), bytes: bytes.into(), whole };
            let _ = (json_lines(&head), csv(&head), json_rows(&head, 9), csv_rows(&head, 9));
        }
    }
}
