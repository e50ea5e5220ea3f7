//! The retry policy: what each answer means for the load. One table, and nothing else decides.

use super::answer::LoadAnswer;
use crate::sink::Refusal;

/// What an answer means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    /// Committed and visible.
    Visible,
    /// Committed, not yet visible.
    Committed,
    /// Another load, or an earlier attempt of this one, has the label and is done.
    LabelFinished,
    /// As above, and it is still running or nobody says how it ended.
    LabelInUse,
    /// Nobody knows: ask for the label.
    Ask,
    /// Not done; the same load may pass later.
    Trouble,
    /// Not done; an administrator has to mend the login.
    Credentials,
    /// Not done; this server cannot read compressed bodies.
    Uncompressed,
    /// Not done; it never will be.
    Refused(Refusal),
    /// Not done, for a reason that is not in the table: may pass, or may not.
    Riddle,
}

/// Judges by `Status` and `Message`, never by the HTTP status.
pub(super) fn judge(answer: &LoadAnswer) -> Verdict {
    match answer.status.to_ascii_lowercase().as_str() {
        "success" | "ok" => Verdict::Visible,
        "publish timeout" => Verdict::Committed,
        "label already exists" => match answer.existing.as_deref() {
            Some("FINISHED") => Verdict::LabelFinished,
            _ => Verdict::LabelInUse,
        },
        _ => judge_message(&answer.message),
    }
}

fn judge_message(message: &str) -> Verdict {
    let message = message.to_ascii_lowercase();
    let known = FRAGMENTS.iter().find(|(fragment, _)| message.contains(fragment));
    known.map_or(Verdict::Riddle, |(_, verdict)| *verdict)
}

/// Parts of messages, in lower case; the first that occurs decides. Messages about rows and tables quote names and
/// values, which can be any words: so the special ones come before the general.
const FRAGMENTS: [(&str, Verdict); 59] = [
    // Some builds answer Fail where others say that the label exists.
    ("has already been used", Verdict::LabelInUse),
    ("transaction status unknown", Verdict::Ask),
    ("too many filtered rows", Verdict::Refused(Refusal::Rows)),
    ("primary key size exceed", Verdict::Refused(Refusal::Rows)),
    ("exceed the max size", Verdict::Refused(Refusal::Rows)),
    ("body size", Verdict::Refused(Refusal::Rows)),
    ("no partitions have data available", Verdict::Refused(Refusal::Rows)),
    ("beyond the capacity", Verdict::Refused(Refusal::Rows)),
    ("is out of range", Verdict::Refused(Refusal::Rows)),
    ("is too long", Verdict::Refused(Refusal::Rows)),
    ("null value in non-nullable column", Verdict::Refused(Refusal::Rows)),
    ("unsupported compression", Verdict::Uncompressed),
    // What the header `compression` gives on a server that does not know it: the frame's magic number as JSON.
    ("illegal json started with [\u{4}]", Verdict::Uncompressed),
    ("access denied", Verdict::Credentials),
    ("no valid basic authorization", Verdict::Credentials),
    ("unknown database", Verdict::Refused(Refusal::Table)),
    ("unknown table", Verdict::Refused(Refusal::Table)),
    ("no database selected", Verdict::Refused(Refusal::Table)),
    ("no table selected", Verdict::Refused(Refusal::Table)),
    ("no default value", Verdict::Refused(Refusal::Table)),
    ("not in table", Verdict::Refused(Refusal::Table)),
    ("not in partial update columns", Verdict::Refused(Refusal::Table)),
    ("only primary key table", Verdict::Refused(Refusal::Table)),
    ("partial update on table with sort key", Verdict::Refused(Refusal::Table)),
    ("duplicate column", Verdict::Refused(Refusal::Table)),
    ("can not be specified", Verdict::Refused(Refusal::Table)),
    ("parse columns header failed", Verdict::Refused(Refusal::Table)),
    ("label format error", Verdict::Refused(Refusal::Table)),
    ("unknown data format", Verdict::Refused(Refusal::Table)),
    ("invalid timeout format", Verdict::Refused(Refusal::Table)),
    ("invalid strict mode format", Verdict::Refused(Refusal::Table)),
    ("invalid partial update flag format", Verdict::Refused(Refusal::Table)),
    ("there is no 100-continue header", Verdict::Refused(Refusal::Table)),
    ("illegal json", Verdict::Refused(Refusal::Rows)),
    // A malformed document spoils the whole load, but not every load.
    ("parse", Verdict::Refused(Refusal::Rows)),
    ("invalid utf-8", Verdict::Refused(Refusal::Rows)),
    ("too many versions", Verdict::Trouble),
    ("too many pending rowsets", Verdict::Trouble),
    ("memory limit", Verdict::Trouble),
    ("exceed limit", Verdict::Trouble),
    ("mem usage", Verdict::Trouble),
    ("running txns on db", Verdict::Trouble),
    ("txn num per be exceeds", Verdict::Trouble),
    ("http cuncurrent limit", Verdict::Trouble),
    ("is shutting down", Verdict::Trouble),
    ("no backend", Verdict::Trouble),
    ("no alive", Verdict::Trouble),
    ("compute node alive", Verdict::Trouble),
    ("don't equal with body bytes", Verdict::Trouble),
    ("not ready", Verdict::Trouble),
    ("aborted", Verdict::Trouble),
    ("cancelled", Verdict::Trouble),
    ("timeout", Verdict::Trouble),
    ("timed out", Verdict::Trouble),
    ("rpc", Verdict::Trouble),
    ("connection", Verdict::Trouble),
    ("network", Verdict::Trouble),
    ("leader", Verdict::Trouble),
    ("capacity exceed", Verdict::Trouble),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(status: &str, message: &str) -> Verdict {
        judge(&LoadAnswer { status: status.to_owned(), message: message.to_owned(), ..LoadAnswer::default() })
    }

    #[test]
    fn status_decides_where_it_says_all() {
        assert_eq!(verdict("Success", "OK"), Verdict::Visible);
        assert_eq!(verdict("Publish Timeout", "too many filtered rows"), Verdict::Committed);
        assert_eq!(verdict("Label Already Exists", ""), Verdict::LabelInUse);
    }

    #[test]
    fn each_message_of_the_table_is_found_in_the_case_that_servers_use() {
        let cases = [
            ("too many filtered rows", Verdict::Refused(Refusal::Rows)),
            ("primary key size exceed the limit.", Verdict::Refused(Refusal::Rows)),
            ("unknown table \"shop.nope\"", Verdict::Refused(Refusal::Table)),
            ("Mapping column is not in table. column: x", Verdict::Refused(Refusal::Table)),
            ("Column has no default value, column=c", Verdict::Refused(Refusal::Table)),
            ("Too many versions, current/limit: 1001/1000", Verdict::Trouble),
            ("Memory limit exceeded, reduce load frequency", Verdict::Trouble),
            ("current running txns on db 7 is 1000, larger than limit", Verdict::Trouble),
            ("Service is shutting down, please retry later!", Verdict::Trouble),
            ("class com.starrocks.common.DdlException: No backend alive.", Verdict::Trouble),
            ("No backend or compute node alive.", Verdict::Trouble),
            ("Access denied for root@10.0.0.7", Verdict::Credentials),
            ("no valid Basic authorization", Verdict::Credentials),
            ("Transaction status unknown, you can retry with same label.", Verdict::Ask),
            ("Label [x] has already been used.", Verdict::LabelInUse),
            ("Unsupported compression type: LZ4_FRAME", Verdict::Uncompressed),
            ("the moon is full", Verdict::Riddle),
        ];
        for (message, expected) in cases {
            assert_eq!(verdict("Fail", message), expected, "{message}");
        }
    }

    #[test]
    fn name_in_a_message_does_not_change_its_meaning() {
        assert_eq!(verdict("Fail", "unknown table \"shop.timeout\""), Verdict::Refused(Refusal::Table));
    }

    #[test]
    fn fragments_are_in_lower_case_and_none_hides_a_later_one() {
        for (index, (fragment, verdict)) in FRAGMENTS.iter().enumerate() {
            assert_eq!(*fragment, fragment.to_ascii_lowercase());
            let earlier = &FRAGMENTS[..index];
            let hidden = earlier
                .iter()
                .find(|(other, other_verdict)| fragment.contains(other) && other_verdict != verdict);
            assert_eq!(hidden, None, "\"{fragment}\" can never decide");
        }
    }
}
