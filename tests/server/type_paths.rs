//! Values of every type, sent once through each path: the copy, the stream from the tuple, and pgoutput. The target
//! must show what is expected of each, whichever way it came.

mod values;

use crate::harness::{Outcome, Pair, normal_form};
use crate::on_a_pair;
use values::{Family, Form};

/// The tables of one kind of values: `plain` is streamed from the tuple, `listed` has a column list in its publication,
/// which makes pgoutput decode it.
struct Group {
    name: &'static str,
    families: Vec<Family>,
}

impl Group {
    fn rows(&self) -> usize {
        // The last row is all NULL.
        1 + self.families.iter().map(|family| family.values.len()).max().unwrap_or(0)
    }

    fn values(&self) -> usize {
        self.families.iter().map(|family| family.values.len() + 1).sum()
    }

    fn columns(&self) -> Vec<String> {
        (1..=self.families.len()).map(|number| format!("c{number}")).collect()
    }

    fn create(&self, prefix: &str) -> String {
        let columns = self.columns().into_iter().zip(&self.families);
        let columns: Vec<_> = columns.map(|(name, family)| format!("{name} {}", family.type_name)).collect();
        format!(
            "CREATE TABLE {prefix}_{} (id int PRIMARY KEY, {}, secret text);",
            self.name,
            columns.join(", ")
        )
    }

    fn insert(&self, prefix: &str, first_id: usize) -> String {
        let table = format!("{prefix}_{}", self.name);
        let columns = self.columns();
        let row = |number: usize| {
            let present = columns.iter().zip(&self.families);
            let present: Vec<_> = present
                .filter_map(|(column, family)| Some((column.as_str(), family.values.get(number)?.0.as_str())))
                .collect();
            let names: String = present.iter().map(|(column, _)| format!(", {column}")).collect();
            let values: String = present.iter().map(|(_, value)| format!(", {value}")).collect();
            format!("INSERT INTO {table} (id{names}) VALUES ({}{values});", first_id + number)
        };
        (0..self.rows()).map(row).collect()
    }

    /// What the target has is compared value by value, and every difference is told.
    fn check(&self, pair: &mut Pair, prefix: &str, path: &str, first_id: usize) -> Outcome<Vec<String>> {
        let table = pair.target.table(&format!("{prefix}_{}", self.name));
        let (columns, last_id) = (self.columns().join(", "), first_id + self.rows() - 1);
        let rows = pair.target.rows_in_hexadecimal(&format!(
            "SELECT {columns} FROM {table} WHERE id BETWEEN {first_id} AND {last_id} ORDER BY id"
        ))?;
        assert_eq!(rows.len(), self.rows(), "rows of {table} by {path}");
        let mut differences = vec![];
        for (number, row) in rows.into_iter().enumerate() {
            for (family, found) in self.families.iter().zip(row) {
                let expected = family.values.get(number);
                let found = found.map(|digits| shown(family.form, &digits));
                let wanted = expected.and_then(|(_, text)| text.as_deref());
                let wanted = wanted.map(|text| like(family.form, text));
                if found != wanted {
                    let literal = expected.map_or("NULL", |(literal, _)| literal);
                    differences.push(format!(
                        "{path}: {} {}\n  shows    {}\n  expected {}",
                        family.type_name,
                        cut(Some(literal)),
                        cut(found.as_deref()),
                        cut(wanted.as_deref())
                    ));
                }
            }
        }
        Ok(differences)
    }
}

fn shown(form: Form, digits: &str) -> String {
    if form == Form::Digits {
        return digits.to_owned();
    }
    let bytes = digits
        .as_bytes()
        .chunks(2)
        .filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    like(form, &String::from_utf8_lossy(&bytes.collect::<Vec<_>>()))
}

fn like(form: Form, text: &str) -> String {
    match form {
        Form::Like(type_name) => normal_form(type_name, text),
        Form::Exact | Form::Digits => text.to_owned(),
    }
}

fn cut(text: Option<&str>) -> String {
    let Some(text) = text else { return "NULL".to_owned() };
    let start: String = text.chars().take(120).collect();
    format!("{start:?} ({} bytes)", text.len())
}

fn groups(pair: &mut Pair) -> Outcome<Vec<Group>> {
    pair.source.execute(values::MADE_TYPES)?;
    let mut groups = vec![
        Group { name: "numbers", families: values::numbers() },
        Group { name: "decimals", families: values::decimals() },
        Group { name: "times", families: values::times() },
        Group { name: "texts", families: values::texts() },
        Group { name: "documents", families: values::documents() },
        Group { name: "built_in", families: values::built_in() },
        Group { name: "ranges", families: values::ranges() },
        Group { name: "made", families: values::made() },
        Group { name: "arrays", families: values::arrays() },
    ];
    if !pair.is_before(15, "numerics", "scales that are negative or above the precision") {
        groups.push(Group { name: "scales", families: values::numbers_since_15() });
    }
    let mut families = vec![];
    for (extension, family) in values::of_extensions() {
        let sql = format!("SELECT count(*) > 0 FROM pg_available_extensions WHERE name = '{extension}'");
        if pair.source.is_true(&sql)? {
            pair.source.execute(&format!("CREATE EXTENSION IF NOT EXISTS {extension}"))?;
            families.push(family);
        } else {
            println!("{}: skipped, the extension {extension} is not installed", family.type_name);
        }
    }
    groups.push(Group { name: "extensions", families });
    Ok(groups)
}

/// Sends the values through all paths that the server has, and tells every difference at the target. The names of the tables
/// begin with `plain` and `listed`.
fn differences(pair: &mut Pair, groups: &[Group], options: &str) -> Outcome<Vec<String>> {
    let has_lists = !pair.is_before(15, "pgoutput", "column lists");
    let paths: &[&str] = if has_lists { &["plain", "listed"] } else { &["plain"] };
    for group in groups {
        for prefix in paths {
            pair.source.execute(&(group.create(prefix) + &group.insert(prefix, 1)))?;
        }
    }
    pair.source.execute(&publication(groups, has_lists))?;
    pair.start_mirror_with("publication => 'every_type'", options)?;
    pair.wait()?;
    for group in groups {
        for prefix in paths {
            pair.source.execute(&group.insert(prefix, 1001))?;
        }
    }
    pair.wait()?;
    let mut differences = vec![];
    for group in groups {
        for prefix in paths {
            differences.extend(group.check(pair, prefix, "copy", 1)?);
            let path = if *prefix == "plain" { "tuple" } else { "pgoutput" };
            differences.extend(group.check(pair, prefix, path, 1001)?);
        }
    }
    Ok(differences)
}

fn assert_no(differences: &[String]) {
    assert!(differences.is_empty(), "{} differences\n{}", differences.len(), differences.join("\n"));
}

#[test]
fn every_type_arrives_alike_through_copy_tuple_and_pgoutput() {
    on_a_pair(|pair| {
        let groups = groups(pair)?;
        assert_no(&differences(pair, &groups, "{}")?);
        let values: usize = groups.iter().map(Group::values).sum();
        println!(
            "{values} values of {} types",
            groups.iter().map(|group| group.families.len()).sum::<usize>()
        );
        assert!(values >= 400, "{values} values");
        Ok(())
    });
}

#[test]
fn values_out_of_range_become_the_nearest_on_every_path() {
    on_a_pair(|pair| {
        let groups = [Group { name: "range", families: values::out_of_range() }];
        assert_no(&differences(pair, &groups, r#"{"on_out_of_range": "clamp"}"#)?);
        Ok(())
    });
}

#[test]
fn values_out_of_range_become_null_on_every_path() {
    on_a_pair(|pair| {
        let mut families = values::out_of_range();
        for (_, shown) in families.iter_mut().flat_map(|family| &mut family.values) {
            *shown = None;
        }
        let groups = [Group { name: "range", families }];
        assert_no(&differences(pair, &groups, r#"{"on_out_of_range": "null"}"#)?);
        Ok(())
    });
}

#[test]
fn column_mapped_to_text_keeps_every_value_on_every_path() {
    on_a_pair(|pair| {
        let groups = [Group { name: "text", families: values::kept_as_text() }];
        let prefixes: &[&str] =
            if pair.is_before(15, "pgoutput", "column lists") { &["plain"] } else { &["plain", "listed"] };
        let entry =
            |prefix: &str, column: &String| format!(r#""public.{prefix}_text.{column}": "VARCHAR(1048576)""#);
        let columns = groups[0].columns();
        let map: Vec<_> =
            prefixes.iter().flat_map(|prefix| columns.iter().map(|it| entry(prefix, it))).collect();
        assert_no(&differences(pair, &groups, &format!(r#"{{"column_map": {{{}}}}}"#, map.join(",")))?);
        Ok(())
    });
}

/// The plain tables whole, the listed ones without their column `secret`.
fn publication(groups: &[Group], has_lists: bool) -> String {
    let plain = groups.iter().map(|group| format!("plain_{}", group.name));
    let listed = groups
        .iter()
        .filter(|_| has_lists)
        .map(|group| format!("listed_{} (id, {})", group.name, group.columns().join(", ")));
    format!("CREATE PUBLICATION every_type FOR TABLE {}", plain.chain(listed).collect::<Vec<_>>().join(", "))
}
