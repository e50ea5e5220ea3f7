use super::*;

fn column(attnum: i16, name: &str, type_oid: u32) -> DefinedColumn {
    let (target_name, target_type) = (name.to_owned(), format!("T{type_oid}"));
    DefinedColumn { attnum, name: name.to_owned(), type_oid, typmod: -1, target_name, target_type }
}

fn definition(columns: &[(i16, &str, u32)]) -> Definition {
    let columns = columns.iter().map(|(attnum, name, type_oid)| column(*attnum, name, *type_oid));
    Definition { key_len: 1, columns: columns.collect() }
}

fn orders() -> Definition {
    definition(&[(1, "id", 20), (2, "note", 25), (3, "sum", 23)])
}

#[test]
fn text_gives_the_definition_back() {
    let mut odd = orders();
    odd.columns.push(column(7, "a \"b\"\n\\ -> \"c\" ключ", 1043));
    odd.columns[1].target_type = "DECIMAL(10, 2)".to_owned();
    assert_eq!(Definition::parse(&odd.to_string()), Some(odd));
    for broken in ["", "key", "key 1\n2 \"a", "key 1\n2 \"a\" 25 -> \"a\" T", "columns"] {
        assert_eq!(Definition::parse(broken), None, "{broken}");
    }
}

#[test]
fn columns_are_dropped_renamed_and_added_in_this_order() {
    let new = definition(&[(1, "id", 20), (3, "total", 23), (4, "extra", 25)]);
    let expected = vec![
        AlterStep::Drop { column: "note".to_owned() },
        AlterStep::Rename { from: "sum".to_owned(), to: "total".to_owned() },
        AlterStep::Add { column: "extra".to_owned(), target_type: "T25".to_owned(), default: None },
    ];
    assert_eq!(orders().change_to(&new, Evidence::Row), DefinitionChange::Alter(expected));
    assert_eq!(orders().change_to(&orders(), Evidence::Row), DefinitionChange::Alter(vec![]));
}

#[test]
fn what_cannot_be_altered_safely_is_copied_again() {
    let cases = [
        (definition(&[(2, "note", 25), (1, "id", 20), (3, "sum", 23)]), "its key"),
        (definition(&[(1, "id", 20), (2, "note", 1043), (3, "sum", 23)]), "type of column \"note\""),
        (definition(&[(1, "id", 20), (2, "note", 25), (3, "sum", 20)]), "type of column \"sum\""),
        (definition(&[(1, "nr", 20), (2, "note", 25), (3, "sum", 23)]), "key has been renamed"),
        (definition(&[(1, "id", 20), (2, "note", 25), (4, "sum", 23)]), "column \"sum\" has the name"),
        (definition(&[(1, "id", 20), (2, "sum", 25), (3, "note", 23)]), "has the name"),
        (definition(&[(1, "id", 20), (2, "note", 25), (4, "SUM", 23)]), "column \"SUM\" has the name"),
    ];
    for (new, expected) in cases {
        match orders().change_to(&new, Evidence::Row) {
            DefinitionChange::CopyAgain(reason) => assert!(reason.contains(expected), "{reason}"),
            altered @ DefinitionChange::Alter(_) => panic!("{expected}: {altered:?}"),
        }
    }
}

/// The second column with this type, modifier and target type.
fn with_note(type_oid: u32, typmod: i32, target_type: &str) -> Definition {
    let mut definition = orders();
    definition.columns[1] =
        DefinedColumn { typmod, target_type: target_type.to_owned(), ..column(2, "note", type_oid) };
    definition
}

#[test]
fn wider_type_is_modified_and_another_one_copied_again() {
    let modified = [
        (with_note(1043, 14, "VARCHAR(40)"), with_note(1043, 24, "VARCHAR(80)")),
        (with_note(1043, 14, "VARCHAR(40)"), with_note(25, -1, "VARCHAR(1048576)")),
        (with_note(1700, 655_366, "DECIMAL(10,2)"), with_note(1700, 1_310_726, "DECIMAL(20,2)")),
    ];
    for (old, new) in modified {
        let target_type = new.columns[1].target_type.clone();
        let expected = vec![AlterStep::Modify { column: "note".to_owned(), target_type }];
        assert_eq!(old.change_to(&new, Evidence::Row), DefinitionChange::Alter(expected));
        assert!(matches!(new.change_to(&old, Evidence::Row), DefinitionChange::CopyAgain(_)));
    }
    let copied_again = [
        (with_note(1700, 655_366, "DECIMAL(10,2)"), with_note(1700, 655_368, "DECIMAL(10,4)")),
        (with_note(1700, 655_366, "DECIMAL(10,2)"), with_note(1700, -1, "VARCHAR(147457)")),
        (with_note(23, -1, "INT"), with_note(20, -1, "BIGINT")),
        (with_note(1114, -1, "DATETIME"), with_note(1114, 3, "DATETIME")),
    ];
    for (old, new) in copied_again {
        assert!(matches!(old.change_to(&new, Evidence::Row), DefinitionChange::CopyAgain(_)), "{new}");
    }
    // Whether USING has given other values, a row does not say; the statement does.
    let widened = with_note(23, -1, "INT").change_to(&with_note(20, -1, "BIGINT"), Evidence::TypesAlone);
    let step = AlterStep::Modify { column: "note".to_owned(), target_type: "BIGINT".to_owned() };
    assert_eq!(widened, DefinitionChange::Alter(vec![step]));
    let narrowed = with_note(20, -1, "BIGINT").change_to(&with_note(23, -1, "INT"), Evidence::TypesAlone);
    assert!(matches!(narrowed, DefinitionChange::CopyAgain(_)));
    // Nothing to do at the target.
    let finer = with_note(1114, 3, "DATETIME").change_to(&with_note(1114, 6, "DATETIME"), Evidence::Row);
    assert_eq!(finer, DefinitionChange::Alter(vec![]));
}

#[test]
fn added_columns_are_not_altered() {
    let mut with_mark = orders();
    with_mark.columns.push(DefinedColumn::of(&AddedColumn::Deleted.column()));
    assert!(matches!(orders().change_to(&with_mark, Evidence::Row), DefinitionChange::CopyAgain(_)));
    assert!(matches!(with_mark.change_to(&orders(), Evidence::Row), DefinitionChange::CopyAgain(_)));
    assert_eq!(Definition::parse(&with_mark.to_string()), Some(with_mark));
}

#[test]
fn earlier_rows_go_into_a_later_target() {
    use crate::table::{Kind, SourceColumn, TargetTable};
    let later = definition(&[(1, "id", 20), (3, "total", 23), (4, "note", 25)]);
    let columns = orders().columns.into_iter().map(|it| Column {
        source: SourceColumn {
            attnum: it.attnum,
            name: it.name.clone(),
            type_oid: it.type_oid,
            typmod: it.typmod,
        },
        name: it.target_name,
        kind: Kind::Text,
        target_type: it.target_type,
    });
    let target = TargetTable { database: "d".to_owned(), table: "t".to_owned() };
    let mut row =
        TableSpec { relid: 1, source_name: "s.t".to_owned(), target, columns: columns.collect(), key_len: 1 };
    let narrowed = later.narrowed(&row).unwrap();
    let names: Vec<_> = narrowed.columns.iter().map(|it| (it.source.attnum, it.name.as_str())).collect();
    assert_eq!(names, [(1, "id"), (3, "total")]);
    row.columns[2].source.type_oid = 20;
    assert_eq!(later.narrowed(&row), None);
}
