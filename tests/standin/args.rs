//! The command line.

use std::path::PathBuf;

/// What the stand-in was asked to be.
#[derive(Clone, Debug)]
pub(crate) struct Args {
    pub(crate) fe_port: u16,
    pub(crate) be_port: u16,
    pub(crate) mysql_port: u16,
    pub(crate) user: String,
    pub(crate) password: String,
    /// Whether rows are kept, or only parsed and counted.
    pub(crate) storage: StorageMode,
    /// Whether it is kept when each load came, and which keys it had.
    pub(crate) arrivals: Keep,
    /// Where the database file lies; in memory without one.
    pub(crate) data_dir: Option<PathBuf>,
    /// How many backends the cluster claims to have: the limit of `replication_num`.
    pub(crate) backends: u32,
    pub(crate) exit_with_stdin: bool,
}

/// What becomes of the rows of a load.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum StorageMode {
    /// They are applied to tables that can be read over the MySQL port.
    On,
    /// They are parsed, checked as far as counting needs it, and counted.
    Off,
}

/// Whether something is kept that only few want.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Keep {
    /// It is.
    On,
    /// It is not.
    Off,
}

impl Args {
    /// Reads the arguments after the program's name.
    pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut args = Self {
            fe_port: 0,
            be_port: 0,
            mysql_port: 0,
            user: "root".into(),
            password: String::new(),
            storage: StorageMode::On,
            arrivals: Keep::Off,
            data_dir: None,
            backends: 1,
            exit_with_stdin: false,
        };
        while let Some(name) = arguments.next() {
            if name == "--exit-with-stdin" {
                args.exit_with_stdin = true;
                continue;
            }
            let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
            args.set(&name, value)?;
        }
        Ok(args)
    }

    fn set(&mut self, name: &str, value: String) -> Result<(), String> {
        match name {
            "--fe-port" => self.fe_port = number(name, &value)?,
            "--be-port" => self.be_port = number(name, &value)?,
            "--mysql-port" => self.mysql_port = number(name, &value)?,
            "--backends" => self.backends = number(name, &value)?,
            "--user" => self.user = value,
            "--password" => self.password = value,
            "--data-dir" => self.data_dir = (value != "none").then(|| PathBuf::from(value)),
            "--storage" => {
                self.storage = match value.as_str() {
                    "on" => StorageMode::On,
                    "off" => StorageMode::Off,
                    _ => return Err(format!("--storage is on or off, not {value}")),
                }
            }
            "--arrivals" => {
                self.arrivals = match value.as_str() {
                    "on" => Keep::On,
                    "off" => Keep::Off,
                    _ => return Err(format!("--arrivals is on or off, not {value}")),
                }
            }
            _ => return Err(format!("unknown option {name}")),
        }
        Ok(())
    }
}

fn number<N: std::str::FromStr>(name: &str, value: &str) -> Result<N, String> {
    value.parse().map_err(|_| format!("{name} is a number, not {value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, String> {
        Args::parse(line.split(' ').map(String::from))
    }

    #[test]
    fn options_are_read() {
        let args = parse("--fe-port 8030 --storage off --data-dir none --exit-with-stdin").unwrap();
        assert_eq!((args.fe_port, args.storage, args.exit_with_stdin), (8030, StorageMode::Off, true));
        assert_eq!(args.data_dir, None);
    }

    #[test]
    fn unknown_options_and_missing_values_are_refused() {
        assert!(parse("--port 1").unwrap_err().contains("unknown option"));
        assert!(parse("--fe-port").unwrap_err().contains("needs a value"));
        assert!(parse("--storage maybe").is_err());
        assert!(parse("--arrivals maybe").is_err());
    }
}
