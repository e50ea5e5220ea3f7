//! The tables of the mixed workload, and what is done to each.
//!
//! Statements are made from numbers and, where columns come and go, from the catalogs as the transaction at hand sees them.
//! One that fails, because another client was there first, takes its transaction with it; nothing has to be counted.

use super::values::{present, value};
use crate::harness::{Database, Outcome, Random};

/// Keys are few, so that transactions meet.
const KEYS: u64 = 40;

/// Makes a statement for a table.
type Statement = fn(&mut Random, &mut Database) -> Outcome<String>;

/// A table, and its part in the workload.
pub(super) struct Table {
    /// What makes it.
    pub(super) create: &'static str,
    /// A change of its rows, or of the table itself.
    pub(super) statement: Statement,
    /// How often it is chosen.
    pub(super) weight: u64,
}

/// All tables.
pub(super) const TABLES: [Table; 12] = [
    Table { create: LEAF, statement: leaf, weight: 4 },
    Table { create: WORD, statement: word, weight: 3 },
    Table { create: WHOLE, statement: whole, weight: 2 },
    Table { create: CODED, statement: coded, weight: 2 },
    Table { create: TYPED, statement: typed, weight: 4 },
    Table { create: SHIFTING, statement: shifting, weight: 4 },
    Table { create: LEDGER, statement: ledger, weight: 2 },
    Table { create: NUMBERED, statement: numbered, weight: 1 },
    Table { create: ODD, statement: odd, weight: 1 },
    Table { create: BARE, statement: bare, weight: 1 },
    Table { create: PARTED, statement: parted, weight: 3 },
    Table { create: WANDERER, statement: wanderer, weight: 1 },
];

/// What stands before all tables.
pub(super) const TYPES: &str =
    "CREATE TYPE mood AS ENUM ('calm', 'very \"angry\"', 'ü'); CREATE SCHEMA elsewhere;";

/// A statement for some table.
pub(super) fn statement(random: &mut Random, session: &mut Database) -> Outcome<String> {
    let total: u64 = TABLES.iter().map(|table| table.weight).sum();
    let mut place = random.below(total);
    for table in &TABLES {
        if place < table.weight {
            return (table.statement)(random, session);
        }
        place -= table.weight;
    }
    Ok(String::new())
}

const LEAF: &str =
    "CREATE TABLE leaf (id int, part int, v text, big text, n numeric, PRIMARY KEY (id, part));
    ALTER TABLE leaf ALTER big SET STORAGE EXTERNAL;
    INSERT INTO leaf SELECT n, 0, 'v', repeat('start', 1000), n FROM generate_series(1, 3000) n;";

fn leaf(random: &mut Random, _: &mut Database) -> Outcome<String> {
    let (id, other, number) = (random.below(KEYS), random.below(KEYS), random.below(1_000_000));
    Ok(match random.below(14) {
        0 | 1 => format!(
            "INSERT INTO leaf VALUES ({id}, {}, 'i{number}', repeat('big{number}', 700), {number}.50)
             ON CONFLICT (id, part) DO UPDATE SET v = excluded.v;",
            number % 2
        ),
        2 | 3 => format!("UPDATE leaf SET v = 'u{number}' WHERE id = {id};"),
        4 => format!("UPDATE leaf SET big = repeat('new{number}', 700), n = NULL WHERE id = {id};"),
        5 => format!("UPDATE leaf SET n = n + 1 WHERE id < {KEYS};"),
        6 => format!("DELETE FROM leaf WHERE id = {id} AND part = {};", number % 2),
        // The key moves, and the large value is not in the log.
        7 | 8 => format!(
            "UPDATE leaf SET id = {other} WHERE id = {id} AND part = 0
             AND NOT EXISTS (SELECT FROM leaf l WHERE l.id = {other} AND l.part = 0);"
        ),
        // Two keys change places.
        9 => format!(
            "UPDATE leaf SET id = -1 WHERE id = {id} AND part = 0; UPDATE leaf SET id = {id} WHERE id = {other} AND part = 0;
             UPDATE leaf SET id = {other} WHERE id = -1 AND part = 0;"
        ),
        10 => format!("UPDATE leaf SET part = 1 - part WHERE id % 7 = {} AND id < {KEYS};", number % 7),
        11 => format!(
            "DELETE FROM leaf WHERE id = {id}; INSERT INTO leaf VALUES ({id}, 0, 'again', repeat('b', {}), 1);",
            number % 9000
        ),
        12 if number.is_multiple_of(9) => format!("UPDATE leaf SET v = 'all {number}';"),
        13 if number.is_multiple_of(15) => "TRUNCATE leaf, word CASCADE;".to_owned(),
        _ => format!("UPDATE leaf SET v = v WHERE id = {id};"),
    })
}

const WORD: &str =
    "CREATE TABLE word (id text PRIMARY KEY, at timestamptz, big text, other text, docs jsonb, many text[]);
    ALTER TABLE word ALTER big SET STORAGE EXTERNAL, ALTER other SET STORAGE EXTERNAL,
        ALTER docs SET STORAGE EXTERNAL, ALTER many SET STORAGE EXTERNAL;
    INSERT INTO word SELECT 'w' || n, now(), repeat('start', 1000), NULL FROM generate_series(1, 40) n;";

fn word(random: &mut Random, _: &mut Database) -> Outcome<String> {
    let (id, other, number) = (random.below(KEYS), random.below(KEYS), random.below(1_000_000));
    Ok(match random.below(10) {
        0..=2 => format!(
            "INSERT INTO word VALUES ('w{id}', now(), repeat('a{number}', 800), repeat('b', {}),
                 jsonb_build_object('n', repeat('c', {})), array_fill('é'::text, ARRAY[{}]))
             ON CONFLICT (id) DO UPDATE SET at = now(), other = 'short {number}';",
            number % 9000,
            number % 7000,
            number % 3000
        ),
        3 => format!("UPDATE word SET big = NULL WHERE id = 'w{id}';"),
        4 => format!(
            "UPDATE word SET docs = '[1]' WHERE id = 'w{id}'; UPDATE word SET other = 'o' WHERE id = 'w{id}';"
        ),
        5 => format!("UPDATE word SET many = many || 'x{number}'::text WHERE id = 'w{id}';"),
        6 => format!("DELETE FROM word WHERE id = 'w{id}';"),
        7 if number.is_multiple_of(10) => "TRUNCATE word;".to_owned(),
        _ => format!(
            "UPDATE word SET id = 'w{other}' WHERE id = 'w{id}'
             AND NOT EXISTS (SELECT FROM word w WHERE w.id = 'w{other}');"
        ),
    })
}

const WHOLE: &str = "CREATE TABLE whole (v text, id int PRIMARY KEY, big text);
    ALTER TABLE whole ALTER big SET STORAGE EXTERNAL, REPLICA IDENTITY FULL;
    INSERT INTO whole SELECT 'v', n, repeat('start', 1000) FROM generate_series(1, 40) n;";

fn whole(random: &mut Random, _: &mut Database) -> Outcome<String> {
    let (id, other, number) = (random.below(KEYS), random.below(KEYS), random.below(1_000_000));
    Ok(match random.below(5) {
        0 | 1 => format!(
            "INSERT INTO whole VALUES ('i{number}', {id}, repeat('b{number}', 900))
             ON CONFLICT (id) DO UPDATE SET v = excluded.v;"
        ),
        2 => format!("DELETE FROM whole WHERE id = {id};"),
        3 => format!(
            "UPDATE whole SET id = {other} WHERE id = {id} AND NOT EXISTS (SELECT FROM whole WHERE id = {other});"
        ),
        _ => format!("UPDATE whole SET v = 'u{number}' WHERE id % 5 = {};", id % 5),
    })
}

const CODED: &str = "CREATE TABLE coded (id serial PRIMARY KEY, code varchar(20) NOT NULL, v int, total int GENERATED ALWAYS AS (v * 2) STORED);
    CREATE UNIQUE INDEX coded_code ON coded (code); ALTER TABLE coded REPLICA IDENTITY USING INDEX coded_code;
    INSERT INTO coded (code, v) SELECT 'c' || n, n FROM generate_series(1, 40) n;";

fn coded(random: &mut Random, _: &mut Database) -> Outcome<String> {
    let (id, other, number) = (random.below(KEYS), random.below(KEYS), random.below(1_000));
    Ok(match random.below(5) {
        0 | 1 => format!(
            "INSERT INTO coded (code, v) VALUES ('c{id}', {number}) ON CONFLICT (code) DO UPDATE SET v = excluded.v;"
        ),
        2 => format!("DELETE FROM coded WHERE code = 'c{id}';"),
        3 => format!(
            "UPDATE coded SET code = 'c{other}' WHERE code = 'c{id}'
             AND NOT EXISTS (SELECT FROM coded WHERE code = 'c{other}');"
        ),
        _ => format!("UPDATE coded SET v = v + 1 WHERE id % 3 = {};", id % 3),
    })
}

const TYPED: &str = "CREATE TABLE typed (id int PRIMARY KEY, a smallint, b integer, c bigint, d boolean, e real,
        f double precision, g numeric(20,2), h numeric, i text, j varchar(20), k character(5), l date, m timestamp,
        n timestamptz, o uuid, p bytea, q jsonb, r interval, s inet, t integer[], u mood, v time);";

fn typed(random: &mut Random, _: &mut Database) -> Outcome<String> {
    const COLUMNS: [(&str, &str); 22] = [
        ("a", "smallint"),
        ("b", "integer"),
        ("c", "bigint"),
        ("d", "boolean"),
        ("e", "real"),
        ("f", "double precision"),
        ("g", "numeric(20,2)"),
        ("h", "numeric"),
        ("i", "text"),
        ("j", "character varying(20)"),
        ("k", "character(5)"),
        ("l", "date"),
        ("m", "timestamp without time zone"),
        ("n", "timestamp with time zone"),
        ("o", "uuid"),
        ("p", "bytea"),
        ("q", "jsonb"),
        ("r", "interval"),
        ("s", "inet"),
        ("t", "integer[]"),
        ("u", "mood"),
        ("v", "time without time zone"),
    ];
    let id = random.below(4 * KEYS);
    Ok(match random.below(4) {
        0 | 1 => {
            let values: Vec<_> = COLUMNS.iter().map(|(_, type_name)| value(type_name, random)).collect();
            format!("INSERT INTO typed VALUES ({id}, {}) ON CONFLICT (id) DO NOTHING;", values.join(", "))
        }
        2 => {
            let (column, type_name) = COLUMNS[random.below(22) as usize];
            format!("UPDATE typed SET {column} = {} WHERE id % 9 = {};", value(type_name, random), id % 9)
        }
        _ => format!("DELETE FROM typed WHERE id = {id};"),
    })
}

const SHIFTING: &str = "CREATE TABLE shifting (id int PRIMARY KEY, big text); ALTER TABLE shifting ALTER big SET STORAGE EXTERNAL;
    INSERT INTO shifting SELECT n, repeat('start', 800) FROM generate_series(1, 40) n;";

/// Its columns come, go, change name and type.
fn shifting(random: &mut Random, session: &mut Database) -> Outcome<String> {
    let columns = session.rows(
        "SELECT quote_ident(attname), format_type(atttypid, atttypmod) FROM pg_attribute
         WHERE attrelid = 'shifting'::regclass AND attnum > 2 AND NOT attisdropped ORDER BY attnum",
    )?;
    let id = random.below(KEYS);
    let chosen = columns.get(random.below(columns.len().max(1) as u64) as usize);
    let Some([Some(column), Some(type_name)]) = chosen.map(Vec::as_slice) else {
        return Ok(added(random));
    };
    Ok(match random.below(24) {
        0 if columns.len() > 2 => format!("ALTER TABLE shifting DROP COLUMN {column};"),
        1 => format!("ALTER TABLE shifting RENAME COLUMN {column} TO c{};", random.below(40)),
        2 => retyped(column, type_name, random),
        3 if columns.len() < 12 => added(random),
        4 => format!("ALTER TABLE shifting ALTER {column} SET DEFAULT {};", present(type_name, random)),
        5 => format!("DELETE FROM shifting WHERE id = {id};"),
        6 => format!(
            "UPDATE shifting SET id = id + 1000 WHERE id = {id}; DELETE FROM shifting WHERE id > 1000;"
        ),
        7 => format!("UPDATE shifting SET big = repeat('{id}', 2000) WHERE id = {id};"),
        8..=13 => format!(
            "INSERT INTO shifting (id, big, {column}) VALUES ({id}, repeat('big', 1000), {given})
             ON CONFLICT (id) DO UPDATE SET {column} = excluded.{column};",
            given = value(type_name, random)
        ),
        14 => {
            format!("UPDATE shifting SET {column} = {} WHERE id % 7 = {};", value(type_name, random), id % 7)
        }
        _ => format!("UPDATE shifting SET {column} = {} WHERE id = {id};", value(type_name, random)),
    })
}

fn added(random: &mut Random) -> String {
    let name = format!("c{}", random.below(40));
    let kinds = [
        "integer",
        "text",
        "bigint",
        "character varying(20)",
        "numeric(20,2)",
        "jsonb",
        "timestamp without time zone",
        "boolean",
    ];
    let type_name = kinds[random.below(kinds.len() as u64) as usize];
    let more = match random.below(5) {
        0 => format!(" DEFAULT {}", present(type_name, random)),
        1 => format!(" NOT NULL DEFAULT {}", present(type_name, random)),
        2 if type_name == "integer" => " DEFAULT (random() * 1000)::int".to_owned(),
        _ => String::new(),
    };
    format!("ALTER TABLE shifting ADD COLUMN {name} {type_name}{more};")
}

fn retyped(column: &str, type_name: &str, random: &mut Random) -> String {
    let wider = match type_name {
        "integer" => "bigint",
        "character varying(20)" => "character varying(60)",
        "character varying(60)" | "bigint" | "numeric(24,2)" => "text",
        "numeric(20,2)" => "numeric(24,2)",
        _ => return format!("ALTER TABLE shifting ALTER {column} DROP DEFAULT;"),
    };
    let using = if random.below(3) == 0 { format!(" USING {column}::{wider}") } else { String::new() };
    format!("ALTER TABLE shifting ALTER {column} DROP DEFAULT, ALTER {column} TYPE {wider}{using};")
}

const LEDGER: &str =
    "CREATE TABLE ledger (amount numeric(12, 2), memo text, at timestamptz DEFAULT clock_timestamp());
    INSERT INTO ledger SELECT n / 7.0, repeat('memo ', 20) FROM generate_series(1, 30000) n;";

/// It has no key: rows are added, and all of them go at once.
fn ledger(random: &mut Random, _: &mut Database) -> Outcome<String> {
    let number = random.below(1_000_000);
    Ok(match random.below(40) {
        0 => "TRUNCATE ledger;".to_owned(),
        1 => format!("INSERT INTO ledger SELECT n, 'bulk {number}' FROM generate_series(1, 3000) n;"),
        2 => "TRUNCATE ledger; INSERT INTO ledger VALUES (1, 'after');".to_owned(),
        _ => format!("INSERT INTO ledger VALUES ({number}.25, 'memo {number}'), (NULL, NULL);"),
    })
}

const NUMBERED: &str = "CREATE TABLE numbered (k numeric PRIMARY KEY, day date, v text);
    INSERT INTO numbered SELECT n * 1.50, '2026-01-01', 'v' FROM generate_series(1, 40) n;";

fn numbered(random: &mut Random, _: &mut Database) -> Outcome<String> {
    let (id, zeros, number) = (random.below(KEYS), "0".repeat(random.below(4) as usize), random.below(1000));
    Ok(match random.below(4) {
        0 => format!(
            "INSERT INTO numbered VALUES ({id}.5{zeros}, '2026-01-02', 'i') ON CONFLICT (k) DO UPDATE SET v = 'c{number}';"
        ),
        1 => format!("UPDATE numbered SET k = {id}.5{zeros}, v = 'zeros {number}' WHERE k = {id}.5;"),
        2 => format!("DELETE FROM numbered WHERE k = {id}.5;"),
        _ => format!(
            "UPDATE numbered SET k = k + 1000 WHERE k = {id}.5 AND NOT EXISTS (SELECT FROM numbered WHERE k = {id}.5 + 1000);"
        ),
    })
}

const ODD: &str =
    "CREATE TABLE elsewhere.\"Odd `Name\" (\"Select\" int PRIMARY KEY, \"a b\" text, \"back\\slash\" text,
        \"quote\"\"d\" text, \"tick`\" int, \"ünï\" text, \"a.b\" int, \"$x\" text);
    INSERT INTO elsewhere.\"Odd `Name\" SELECT n, 'v' FROM generate_series(1, 40) n;";

fn odd(random: &mut Random, _: &mut Database) -> Outcome<String> {
    let (id, number) = (random.below(KEYS), random.below(1000));
    let text = value("text", random);
    Ok(match random.below(3) {
        0 => format!(
            "INSERT INTO elsewhere.\"Odd `Name\" VALUES ({id}, {text}, {text}, {text}, {number}, {text}, {number}, {text})
             ON CONFLICT (\"Select\") DO UPDATE SET \"quote\"\"d\" = excluded.\"quote\"\"d\";"
        ),
        1 => format!("UPDATE elsewhere.\"Odd `Name\" SET \"ünï\" = {text}, \"a.b\" = {number} WHERE \"Select\" = {id};"),
        _ => format!("DELETE FROM elsewhere.\"Odd `Name\" WHERE \"Select\" = {id};"),
    })
}

const BARE: &str = "CREATE TABLE bare (id bigint, day date, PRIMARY KEY (id, day));";

/// It has nothing but its key.
fn bare(random: &mut Random, _: &mut Database) -> Outcome<String> {
    let (id, days) = (random.below(KEYS), random.below(5));
    Ok(match random.below(3) {
        0 | 1 => {
            format!("INSERT INTO bare VALUES ({id}, date '2026-01-01' + {days}) ON CONFLICT DO NOTHING;")
        }
        _ => format!("DELETE FROM bare WHERE id = {id};"),
    })
}

const PARTED: &str = "CREATE TABLE parted (id int, part int, v text, big text, PRIMARY KEY (id, part)) PARTITION BY LIST (part);
    CREATE TABLE parted_0 PARTITION OF parted FOR VALUES IN (0);
    CREATE TABLE parted_1 (v text, gone int, big text, part int NOT NULL, id int NOT NULL, PRIMARY KEY (part, id));
    ALTER TABLE parted_1 DROP COLUMN gone, ALTER big SET STORAGE EXTERNAL;
    ALTER TABLE parted_1 DROP CONSTRAINT parted_1_pkey;
    ALTER TABLE parted ATTACH PARTITION parted_1 FOR VALUES IN (1);
    CREATE TABLE parted_rest PARTITION OF parted DEFAULT;
    INSERT INTO parted SELECT n, n % 3, 'v', repeat('start', 900) FROM generate_series(1, 300) n;";

/// Rows move between partitions, which come and go.
fn parted(random: &mut Random, _: &mut Database) -> Outcome<String> {
    let (id, number, part) = (random.below(KEYS), random.below(1000), random.below(4));
    Ok(match random.below(17) {
        0..=2 => format!(
            "INSERT INTO parted VALUES ({id}, {part}, 'i{number}', repeat('b{number}', 900))
             ON CONFLICT (id, part) DO UPDATE SET v = excluded.v;"
        ),
        3..=6 => format!("UPDATE parted SET v = 'u{number}' WHERE id % 5 = {};", id % 5),
        7 | 8 => format!(
            "UPDATE parted SET part = {part} WHERE id = {id} AND part <> {part}
             AND NOT EXISTS (SELECT FROM parted WHERE id = {id} AND part = {part});"
        ),
        9 => format!("DELETE FROM parted WHERE id = {id};"),
        10 if number.is_multiple_of(6) => "ALTER TABLE parted DETACH PARTITION parted_1;".to_owned(),
        11 if number.is_multiple_of(3) => {
            "DELETE FROM parted WHERE part = 1; ALTER TABLE parted ATTACH PARTITION parted_1 FOR VALUES IN (1);".to_owned()
        }
        12 if number.is_multiple_of(8) => "TRUNCATE parted_0;".to_owned(),
        13 if number.is_multiple_of(8) => "TRUNCATE parted;".to_owned(),
        14 if number.is_multiple_of(6) => {
            format!("ALTER TABLE parted ADD COLUMN IF NOT EXISTS more{} int DEFAULT {number};", number % 3)
        }
        15 if number.is_multiple_of(6) => format!("ALTER TABLE parted DROP COLUMN IF EXISTS more{};", number % 3),
        _ => format!("UPDATE parted SET big = repeat('n{number}', 800) WHERE id = {id};"),
    })
}

const WANDERER: &str = "CREATE TABLE wanderer (id int PRIMARY KEY, v text);
    INSERT INTO wanderer SELECT n, 'v' FROM generate_series(1, 40) n;";

/// It has other names at times, in other schemas.
fn wanderer(random: &mut Random, session: &mut Database) -> Outcome<String> {
    let name = session.value(
        "SELECT oid::regclass FROM pg_class WHERE relname IN ('wanderer', 'nomad') AND relkind = 'r' LIMIT 1",
    )?;
    let (id, number) = (random.below(KEYS), random.below(1000));
    let other = if name.ends_with("nomad") { "wanderer" } else { "nomad" };
    let schema = if name.starts_with("elsewhere") { "public" } else { "elsewhere" };
    Ok(match random.below(8) {
        0 => format!("ALTER TABLE {name} RENAME TO {other};"),
        1 => format!("ALTER TABLE {name} SET SCHEMA {schema};"),
        2 => format!("DELETE FROM {name} WHERE id = {id};"),
        _ => format!("INSERT INTO {name} VALUES ({id}, 'i') ON CONFLICT (id) DO UPDATE SET v = 'c{number}';"),
    })
}
