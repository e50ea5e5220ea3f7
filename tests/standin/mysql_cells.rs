//! Values of results on the wire, in the text and in the binary protocol.

use std::io::{self, Write};

use opensrv_mysql::{Column, ColumnFlags, ColumnType, ToMysqlValue};

use crate::statement::{OwnedCell, WireType};

/// A value with the type that its column was announced with.
pub(crate) struct WireCell<'a> {
    pub(crate) cell: &'a OwnedCell,
    pub(crate) ty: WireType,
}

impl WireType {
    fn column_type(self) -> ColumnType {
        match self {
            Self::Tiny => ColumnType::MYSQL_TYPE_TINY,
            Self::Short => ColumnType::MYSQL_TYPE_SHORT,
            Self::Long => ColumnType::MYSQL_TYPE_LONG,
            Self::LongLong => ColumnType::MYSQL_TYPE_LONGLONG,
            Self::Float => ColumnType::MYSQL_TYPE_FLOAT,
            Self::Double => ColumnType::MYSQL_TYPE_DOUBLE,
            Self::Decimal => ColumnType::MYSQL_TYPE_NEWDECIMAL,
            Self::Date => ColumnType::MYSQL_TYPE_DATE,
            Self::DateTime => ColumnType::MYSQL_TYPE_DATETIME,
            Self::Text => ColumnType::MYSQL_TYPE_VAR_STRING,
            Self::Json => ColumnType::MYSQL_TYPE_JSON,
            Self::Blob => ColumnType::MYSQL_TYPE_BLOB,
        }
    }
}

/// The announcement of a column.
pub(crate) fn column((name, ty): &(String, WireType)) -> Column {
    let colflags = if *ty == WireType::Blob { ColumnFlags::BINARY_FLAG } else { ColumnFlags::empty() };
    Column { table: String::new(), column: name.clone(), coltype: ty.column_type(), colflags }
}

impl WireCell<'_> {
    /// The value as text; floats in the shortest form that reads back the same.
    fn text(&self) -> Vec<u8> {
        match (self.cell, self.ty) {
            (OwnedCell::Null, _) => Vec::new(),
            (OwnedCell::Int(value), _) => value.to_string().into_bytes(),
            #[expect(clippy::cast_possible_truncation, reason = "a FLOAT was stored from 32 bits")]
            (OwnedCell::Real(value), WireType::Float) => (*value as f32).to_string().into_bytes(),
            (OwnedCell::Real(value), _) => value.to_string().into_bytes(),
            (OwnedCell::Text(text), _) => text.clone().into_bytes(),
            (OwnedCell::Blob(bytes), _) => bytes.clone(),
        }
    }

    fn integer(&self) -> io::Result<i64> {
        match self.cell {
            OwnedCell::Int(value) => Ok(*value),
            other => Err(io::Error::other(format!("{other:?} is no integer"))),
        }
    }

    fn real(&self) -> io::Result<f64> {
        match self.cell {
            OwnedCell::Real(value) => Ok(*value),
            #[expect(clippy::cast_precision_loss, reason = "the column is announced as a double")]
            OwnedCell::Int(value) => Ok(*value as f64),
            OwnedCell::Text(text) => text.parse().map_err(io::Error::other),
            other => Err(io::Error::other(format!("{other:?} is no number"))),
        }
    }
}

impl ToMysqlValue for WireCell<'_> {
    fn to_mysql_text<W: Write>(&self, w: &mut W) -> io::Result<()> {
        if self.is_null() {
            return w.write_all(&[0xFB]);
        }
        write_string(w, &self.text())
    }

    fn to_mysql_bin<W: Write>(&self, w: &mut W, _: &Column) -> io::Result<()> {
        let narrow = |_| io::Error::other("the value does not fit the type of its column");
        match self.ty {
            WireType::Tiny => w.write_all(&i8::try_from(self.integer()?).map_err(narrow)?.to_le_bytes()),
            WireType::Short => w.write_all(&i16::try_from(self.integer()?).map_err(narrow)?.to_le_bytes()),
            WireType::Long => w.write_all(&i32::try_from(self.integer()?).map_err(narrow)?.to_le_bytes()),
            WireType::LongLong => w.write_all(&self.integer()?.to_le_bytes()),
            #[expect(clippy::cast_possible_truncation, reason = "a FLOAT was stored from 32 bits")]
            WireType::Float => w.write_all(&(self.real()? as f32).to_le_bytes()),
            WireType::Double => w.write_all(&self.real()?.to_le_bytes()),
            WireType::Date | WireType::DateTime => write_date(w, &self.text()),
            WireType::Decimal | WireType::Text | WireType::Json | WireType::Blob => {
                write_string(w, &self.text())
            }
        }
    }

    fn is_null(&self) -> bool {
        *self.cell == OwnedCell::Null
    }
}

/// Bytes behind their length.
fn write_string<W: Write>(w: &mut W, bytes: &[u8]) -> io::Result<()> {
    let length = bytes.len() as u64;
    let [a, b, c, ..] = length.to_le_bytes();
    match length {
        0..=0xFA => w.write_all(&[a])?,
        0xFB..=0xFFFF => w.write_all(&[0xFC, a, b])?,
        0x1_0000..=0xFF_FFFF => w.write_all(&[0xFD, a, b, c])?,
        _ => {
            w.write_all(&[0xFE])?;
            w.write_all(&length.to_le_bytes())?;
        }
    }
    w.write_all(bytes)
}

/// `YYYY-MM-DD[ HH:MM:SS[.ffffff]]` as the binary protocol packs it.
fn write_date<W: Write>(w: &mut W, text: &[u8]) -> io::Result<()> {
    let text = std::str::from_utf8(text).map_err(io::Error::other)?;
    let numbers: Result<Vec<u32>, _> = text.split(['-', ' ', ':', '.']).map(str::parse).collect();
    let numbers = numbers.map_err(io::Error::other)?;
    let part = |index: usize| numbers.get(index).copied().unwrap_or(0);
    let [year_low, year_high, ..] = part(0).to_le_bytes();
    let byte = |index| u8::try_from(part(index)).map_err(io::Error::other);
    let mut packed = vec![year_low, year_high, byte(1)?, byte(2)?];
    if numbers.len() > 3 {
        packed.extend([byte(3)?, byte(4)?, byte(5)?]);
    }
    if numbers.len() > 6 {
        packed.extend(part(6).to_le_bytes());
    }
    w.write_all(&[u8::try_from(packed.len()).map_err(io::Error::other)?])?;
    w.write_all(&packed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binary(cell: OwnedCell, ty: WireType) -> Vec<u8> {
        let mut out = Vec::new();
        WireCell { cell: &cell, ty }.to_mysql_bin(&mut out, &column(&("c".into(), ty))).unwrap();
        out
    }

    #[test]
    fn dates_are_packed() {
        let text = |text: &str| OwnedCell::Text(text.into());
        assert_eq!(binary(text("2026-11-20"), WireType::Date), [4, 0xEA, 7, 11, 20]);
        let packed = binary(text("2026-11-20 01:02:03.000004"), WireType::DateTime);
        assert_eq!(packed, [11, 0xEA, 7, 11, 20, 1, 2, 3, 4, 0, 0, 0]);
    }

    #[test]
    fn floats_are_printed_shortest() {
        let cell = OwnedCell::Real(0.1f32.into());
        let mut out = Vec::new();
        WireCell { cell: &cell, ty: WireType::Float }.to_mysql_text(&mut out).unwrap();
        assert_eq!(out, b"\x030.1");
    }

    #[test]
    fn long_strings_carry_longer_lengths() {
        assert_eq!(binary(OwnedCell::Text("x".repeat(300)), WireType::Text)[..3], [0xFC, 44, 1]);
        assert_eq!(binary(OwnedCell::Text("x".repeat(70_000)), WireType::Text)[..4], [0xFD, 112, 17, 1]);
    }
}
