//! Random rows between random changes of columns, in transactions that are rolled back in part or whole, while the worker is
//! ended now and then: the target has the same columns and rows in the end. `DBMAZZ_TEST_SEED` repeats a run.

use crate::harness::{Outcome, Pair, Random};
use crate::on_a_pair;

const TRANSACTIONS: u32 = 120;

/// The columns that come and go; `id` and `big` stay.
#[derive(Clone, Default)]
struct Columns(Vec<(String, Kind)>);

#[derive(Clone, Copy, Eq, PartialEq)]
enum Kind {
    Number,
    Text,
}

impl Columns {
    fn free_name(&self, random: &mut Random) -> Option<String> {
        let name = format!("c{}", random.below(40));
        self.0.iter().all(|(present, _)| *present != name).then_some(name)
    }

    fn any(&self, random: &mut Random) -> Option<usize> {
        let count = u64::try_from(self.0.len()).unwrap_or_default();
        (count > 0).then(|| usize::try_from(random.below(count)).unwrap_or_default())
    }

    fn alteration(&mut self, random: &mut Random) -> String {
        let place = self.any(random);
        match (random.below(6), place, self.free_name(random)) {
            (0 | 1, Some(place), _) if self.0.len() > 3 => {
                format!("ALTER TABLE item DROP COLUMN {};", self.0.remove(place).0)
            }
            (2, Some(place), Some(name)) => {
                let from = std::mem::replace(&mut self.0[place].0, name.clone());
                format!("ALTER TABLE item RENAME COLUMN {from} TO {name};")
            }
            (3, _, Some(name)) => self.add(name, Kind::Text, ""),
            (4, _, Some(name)) => self.add(name, Kind::Text, " DEFAULT 'given'"),
            (5, _, Some(name)) => self.add(name, Kind::Number, " NOT NULL DEFAULT 17"),
            (_, _, Some(name)) => self.add(name, Kind::Number, ""),
            (_, _, None) => String::new(),
        }
    }

    fn add(&mut self, name: String, kind: Kind, more: &str) -> String {
        let type_name = if kind == Kind::Number { "int" } else { "text" };
        let statement = format!("ALTER TABLE item ADD COLUMN {name} {type_name}{more};");
        self.0.push((name, kind));
        statement
    }

    fn change(&self, random: &mut Random) -> String {
        let id = random.below(60);
        let Some(place) = self.any(random) else { return format!("DELETE FROM item WHERE id = {id};") };
        let (name, kind) = &self.0[place];
        let value = match kind {
            Kind::Number => random.below(1000).to_string(),
            Kind::Text => format!("'t{}'", random.below(1000)),
        };
        match random.below(8) {
            0 => format!("DELETE FROM item WHERE id = {id};"),
            1 => format!("UPDATE item SET id = id + 60 WHERE id = {id}; DELETE FROM item WHERE id >= 60;"),
            2 => format!("UPDATE item SET big = repeat('{id}', 2000) WHERE id = {id};"),
            3 | 4 => format!(
                "INSERT INTO item (id, big, {name}) VALUES ({id}, repeat('big', 1000), {value})
                     ON CONFLICT (id) DO UPDATE SET {name} = excluded.{name};"
            ),
            5 => format!("UPDATE item SET {name} = {value} WHERE id % 7 = {};", id % 7),
            _ => format!("UPDATE item SET {name} = {value} WHERE id = {id};"),
        }
    }

    fn some(&mut self, random: &mut Random) -> String {
        if random.below(4) == 0 { self.alteration(random) } else { self.change(random) }
    }

    fn transaction(&mut self, random: &mut Random) -> String {
        let before = self.clone();
        let mut sql = String::from("BEGIN;");
        for _ in 0..=random.below(5) {
            if random.below(6) == 0 {
                let mut undone = self.clone();
                sql.push_str(&format!("SAVEPOINT s; {} ROLLBACK TO s;", undone.some(random)));
            } else {
                sql.push_str(&self.some(random));
            }
        }
        if random.below(8) == 0 {
            *self = before;
            sql.push_str("ROLLBACK");
        } else {
            sql.push_str("COMMIT");
        }
        sql
    }
}

fn run(pair: &mut Pair, random: &mut Random) -> Outcome {
    pair.source.execute(
        "CREATE TABLE item (id int PRIMARY KEY, big text); ALTER TABLE item ALTER big SET STORAGE EXTERNAL;
         INSERT INTO item SELECT n, repeat('start', 800) FROM generate_series(1, 40) n",
    )?;
    pair.start_mirror_with("tables => ARRAY['item']::regclass[]", r#"{"batch_max_rows": 5}"#)?;
    pair.wait()?;
    let mut columns = Columns::default();
    for number in 1..=TRANSACTIONS {
        pair.source.execute(&columns.transaction(random))?;
        if number % 20 == 0 {
            pair.source.execute(&format!(
                "SELECT pg_terminate_backend(pid) FROM dbmazz_stat_mirror WHERE mirror = '{}'",
                pair.mirror()
            ))?;
        }
        if number % 30 == 0 {
            pair.wait_and_compare(&["item"])?;
        }
    }
    pair.wait_and_compare(&["item"])?;
    // Both ways were gone, or the run has shown nothing.
    for pattern in ["has been altered", "will be copied again"] {
        assert!(pair.has_event(pattern)?, "{pattern}");
    }
    Ok(())
}

#[test]
fn both_sides_are_equal_after_random_changes_of_columns_and_rows() {
    on_a_pair(|pair| {
        let mut random = Random::announced("random ddl");
        run(pair, &mut random)
    });
}
