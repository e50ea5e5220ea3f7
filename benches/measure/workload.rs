//! The tables that are measured with, and what is written into them.
//!
//! Keys are distinct, so compaction removes nothing, but for TPC-B, whose branches and tellers are few. Texts are
//! hexadecimal digits of digests, which LZ4 makes hardly shorter.

use crate::harness::{Outcome, Pgbench};
use crate::lab::{Expected, Lab};

/// The shape of a table's rows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Shape {
    /// A number, a short text and a time: about 100 bytes of log.
    Narrow,
    /// About 400 bytes.
    Middle,
    /// About 1.6 kB.
    Wide,
    /// 100 columns of six types.
    Columns,
    /// A text of 100 kB, out of line.
    Toasted,
}

impl Shape {
    /// The name of its table.
    pub(crate) const fn table(self) -> &'static str {
        match self {
            Self::Narrow => "narrow",
            Self::Middle => "middle",
            Self::Wide => "wide",
            Self::Columns => "columns",
            Self::Toasted => "toasted",
        }
    }

    /// For readers.
    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::Narrow => "rows of 100 B",
            Self::Middle => "rows of 400 B",
            Self::Wide => "rows of 1.6 kB",
            Self::Columns => "rows of 100 columns",
            Self::Toasted => "rows of 100 kB, TOASTed",
        }
    }

    /// How many rows make about as much work as two million narrow ones.
    pub(crate) const fn rows(self) -> u64 {
        match self {
            Self::Narrow => 2_000_000,
            Self::Middle => 800_000,
            Self::Wide => 200_000,
            Self::Columns => 100_000,
            Self::Toasted => 2_000,
        }
    }

    /// Rows of a transaction that does not spill: about 20 MB.
    const fn rows_of_a_transaction(self) -> u64 {
        match self {
            Self::Narrow => 100_000,
            Self::Middle => 40_000,
            Self::Wide => 10_000,
            Self::Columns => 10_000,
            Self::Toasted => 200,
        }
    }

    /// The columns but the key, each with its type and its value for row `n`.
    fn columns(self) -> Vec<(String, &'static str, String)> {
        let digests = |count: usize, digests: usize, type_: &'static str| {
            (0..count).map(move |column| {
                let value = (0..digests).map(|part| format!("md5('{column}.{part}.' || n)"));
                (format!("t{column}"), type_, value.collect::<Vec<_>>().join(" || "))
            })
        };
        let number = ("a".to_owned(), "integer", "n % 1000".to_owned());
        let time = ("ts".to_owned(), "timestamptz", "now()".to_owned());
        match self {
            Self::Narrow => {
                vec![number, ("b".to_owned(), "text", "'row number ' || n % 1000000".to_owned()), time]
            }
            Self::Middle => [number, time].into_iter().chain(digests(10, 1, "text")).collect(),
            Self::Wide => [number, time].into_iter().chain(digests(12, 4, "text")).collect(),
            Self::Columns => (0..99)
                .map(|column| {
                    let (type_, value) = match column % 6 {
                        0 => ("integer", format!("(n + {column}) % 100000")),
                        1 => ("text", format!("'text ' || (n + {column}) % 1000000")),
                        2 => ("numeric(12,2)", format!("((n + {column}) % 10000000)::numeric / 100")),
                        3 => ("timestamptz", "now()".to_owned()),
                        4 => ("double precision", format!("(n + {column}) / 7.0")),
                        _ => ("boolean", format!("n % {} = 0", column + 2)),
                    };
                    (format!("c{column}"), type_, value)
                })
                .collect(),
            Self::Toasted => {
                let value =
                    "(SELECT string_agg(md5(n || '.' || part), '') FROM generate_series(1, 3200) part)";
                vec![("doc".to_owned(), "text", value.to_owned())]
            }
        }
    }

    /// The table, under a name.
    pub(crate) fn create(self, table: &str) -> String {
        let columns: Vec<_> =
            self.columns().iter().map(|(name, type_, _)| format!("{name} {type_}")).collect();
        format!("CREATE TABLE {table} (id bigint PRIMARY KEY, {})", columns.join(", "))
    }

    /// Rows `first` to `last`, as one statement.
    pub(crate) fn insert(self, table: &str, first: u64, last: u64) -> String {
        let values: Vec<_> = self.columns().into_iter().map(|(_, _, value)| value).collect();
        format!("INSERT INTO {table} SELECT n, {} FROM generate_series({first}, {last}) n", values.join(", "))
    }

    /// Rows from `first` on, in transactions that do not spill.
    pub(crate) fn inserts(self, table: &str, first: u64, rows: u64) -> Vec<String> {
        pieces(first, rows, self.rows_of_a_transaction())
            .map(|(first, last)| self.insert(table, first, last))
            .collect()
    }
}

/// `rows` numbers from `first` on, in pieces: the first and the last of each.
fn pieces(first: u64, rows: u64, size: u64) -> impl Iterator<Item = (u64, u64)> {
    let end = first + rows;
    (first..end)
        .step_by(usize::try_from(size).unwrap_or(usize::MAX))
        .map(move |from| (from, (from + size).min(end) - 1))
}

/// What is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Writes {
    /// Inserts, in transactions of about 20 MB.
    Inserts,
    /// Inserts, in transactions of so many rows.
    Transactions(u64),
    /// Inserts, all in one transaction.
    OneTransaction,
    Updates,
    Deletes,
    /// pgbench's transactions: three updates and an insert each.
    TpcB,
    /// One transaction into a table that is not mirrored, and single rows into one that is.
    Unpublished,
}

/// Something to be decoded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Workload {
    pub(crate) shape: Shape,
    pub(crate) writes: Writes,
}

/// A backlog that was written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backlog {
    /// What the rate is told in.
    pub(crate) changes: u64,
    /// What must arrive.
    pub(crate) expected: Expected,
}

impl Workload {
    /// For readers.
    pub(crate) fn words(self) -> String {
        let shape = self.shape.words();
        match self.writes {
            Writes::Inserts => format!("{shape}, inserts"),
            Writes::Transactions(1) => format!("{shape}, transactions of one row"),
            Writes::Transactions(rows) => format!("{shape}, transactions of {rows} rows"),
            Writes::OneTransaction => format!("{shape}, all in one transaction"),
            Writes::Updates => format!("{shape}, updates"),
            Writes::Deletes => format!("{shape}, deletes"),
            Writes::TpcB => "TPC-B".to_owned(),
            Writes::Unpublished => {
                "one transaction into an unpublished table, single rows into a mirrored one".to_owned()
            }
        }
    }

    /// How many changes at full size.
    pub(crate) const fn changes(self) -> u64 {
        match self.writes {
            Writes::Inserts => self.shape.rows(),
            Writes::Transactions(1) => 500_000,
            Writes::Transactions(_) | Writes::Updates | Writes::Deletes => 1_000_000,
            Writes::OneTransaction | Writes::Unpublished => 5_000_000,
            Writes::TpcB => 400_000,
        }
    }

    /// The tables that are mirrored.
    pub(crate) fn tables(self) -> Vec<&'static str> {
        match self.writes {
            Writes::TpcB => {
                vec!["pgbench_accounts", "pgbench_branches", "pgbench_tellers", "pgbench_history"]
            }
            _ => vec![self.shape.table()],
        }
    }

    /// Makes them, empty but for those of pgbench.
    pub(crate) fn create(self, lab: &mut Lab) -> Outcome {
        if self.writes == Writes::TpcB {
            return Pgbench::initialize(&lab.pair.source, 10);
        }
        lab.pair.source.execute(&self.shape.create(self.shape.table()))?;
        if self.writes == Writes::Unpublished {
            lab.pair.source.execute(&self.shape.create("unpublished"))?;
        }
        Ok(())
    }

    /// What must be there before the backlog, and is not part of it.
    pub(crate) fn prepare(self, lab: &mut Lab, run: u32, changes: u64) -> Outcome {
        let is_needed = match self.writes {
            Writes::Updates => run == 1,
            Writes::Deletes => true,
            _ => false,
        };
        if !is_needed {
            return Ok(());
        }
        lab.execute_each(&self.shape.inserts(self.shape.table(), 0, changes))
    }

    /// Writes the backlog of a run.
    pub(crate) fn write(self, lab: &mut Lab, run: u32, changes: u64) -> Outcome<Backlog> {
        let (shape, table) = (self.shape, self.shape.table());
        let first = u64::from(run) * 1_000_000_000;
        let last = first + changes - 1;
        // Only the time until it is decoded is measured; waiting for each flush would take long.
        lab.pair.source.execute("SET synchronous_commit = off")?;
        let each = |sql: &str| {
            pieces(0, changes, shape.rows_of_a_transaction())
                .map(|(first, last)| format!("{sql} WHERE id BETWEEN {first} AND {last}"))
                .collect::<Vec<_>>()
        };
        let expected = Expected::Exactly(changes);
        match self.writes {
            Writes::Inserts => lab.execute_each(&shape.inserts(table, first, changes))?,
            Writes::Transactions(rows) => {
                lab.pair.source.execute(&in_transactions(shape, first, changes, rows))?
            }
            Writes::OneTransaction => lab.pair.source.execute(&shape.insert(table, first, last))?,
            Writes::Updates => {
                lab.execute_each(&each(&format!("UPDATE {table} SET a = a + 1, ts = now()")))?
            }
            Writes::Deletes => lab.execute_each(&each(&format!("DELETE FROM {table}")))?,
            Writes::TpcB => return tpc_b(lab, changes),
            Writes::Unpublished => return unpublished(lab, shape, first, changes),
        }
        Ok(Backlog { changes, expected })
    }
}

fn in_transactions(shape: Shape, first: u64, changes: u64, rows: u64) -> String {
    let insert = shape.insert(shape.table(), 0, 0).replace(
        "generate_series(0, 0)",
        &format!("generate_series(i, least(i + {rows}, {}) - 1)", first + changes),
    );
    // No FOR: its variable is an integer, and keys of later runs are beyond that.
    format!(
        "DO $$ DECLARE i bigint := {first}; BEGIN WHILE i < {} LOOP {insert}; COMMIT; i := i + {rows}; END LOOP; END $$",
        first + changes
    )
}

fn tpc_b(lab: &mut Lab, changes: u64) -> Outcome<Backlog> {
    let transactions = (changes / 16).max(1);
    let (cluster, database) = (lab.pair.source.cluster().clone(), lab.pair.source.name().to_owned());
    lab.pair.source.execute(&format!("ALTER DATABASE {database} SET synchronous_commit = off"))?;
    Pgbench::run(&cluster, &database, &["--transactions", &transactions.to_string()])?.succeed()?;
    lab.pair.source.execute(&format!("ALTER DATABASE {database} RESET synchronous_commit"))?;
    let changes = transactions * 16;
    Ok(Backlog { changes, expected: Expected::AtMost(changes) })
}

/// The rows of the mirrored table commit while the long transaction runs.
fn unpublished(lab: &mut Lab, shape: Shape, first: u64, changes: u64) -> Outcome<Backlog> {
    let mut other = lab.pair.source.another_session()?;
    let sql = shape.insert("unpublished", first, first + changes - 1);
    let writer = std::thread::spawn(move || {
        other.execute("SET statement_timeout = 0")?;
        other.execute(&sql)
    });
    let mut ticks = 0;
    while ticks == 0 || !writer.is_finished() {
        lab.pair.source.execute(&shape.insert(shape.table(), first + ticks, first + ticks))?;
        ticks += 1;
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    writer.join().map_err(|_| crate::harness::Failure::new("the writer panicked"))??;
    Ok(Backlog { changes: changes + ticks, expected: Expected::Exactly(ticks) })
}
