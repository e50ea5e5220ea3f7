//! Each case of the table in the module's words.

use super::*;

const REACHED: Reached = Reached { confirmed_lsn: Lsn(100), timeline: 1 };

fn place() -> Place {
    Place { system_identifier: 7, database_oid: 5, data_directory: "/data".to_owned(), host: "a".to_owned() }
}

fn log() -> Log {
    Log { timeline: 1, end: Lsn(500), switches: vec![] }
}

fn grown(end: u64) -> Log {
    Log { timeline: 2, end: Lsn(500), switches: vec![Switch { timeline: 1, end: Lsn(end) }] }
}

fn slot() -> Slot {
    Slot {
        confirmed_lsn: Lsn(100),
        database_oid: 5,
        plugin: "pgoutput".to_owned(),
        is_temporary: false,
        is_two_phase: false,
        invalidation: None,
        active_pid: None,
    }
}

fn states(result: Result<(), Trouble>) -> Option<Standstill> {
    result.err().map(|trouble| trouble.standstill())
}

#[test]
fn a_mirror_goes_on_where_it_ran() {
    assert_eq!(judge_place(&place(), &place(), &log(), Some(REACHED)), Ok(()));
    assert_eq!(judge_place(&place(), &place(), &log(), None), Ok(()));
}

#[test]
fn a_copy_is_paused_whatever_tells_it() {
    type Change = fn(&mut Place);
    let changes: [Change; 4] = [
        |place| place.system_identifier = 8,
        |place| place.database_oid = 6,
        |place| place.data_directory = "/copy".to_owned(),
        |place| place.host = "b".to_owned(),
    ];
    for change in changes {
        let mut here = place();
        change(&mut here);
        for reached in [None, Some(REACHED)] {
            let judged = judge_place(&place(), &here, &log(), reached);
            assert_eq!(states(judged), Some(Standstill::Paused), "{here:?}");
        }
    }
}

#[test]
fn a_promoted_standby_goes_on_elsewhere_if_it_has_the_checkpoint() {
    let here = Place { host: "b".to_owned(), data_directory: "/standby".to_owned(), ..place() };
    assert_eq!(judge_place(&place(), &here, &grown(100), Some(REACHED)), Ok(()));
    let behind = judge_place(&place(), &here, &grown(99), Some(REACHED));
    assert_eq!(behind, Err(Trouble::LogEndsBefore { end: Lsn(99), confirmed_lsn: Lsn(100) }));
    // Its log may be longer by now; what counts is where it left the timeline of the checkpoint.
    let unrelated = Log { timeline: 3, ..log() };
    let judged = judge_place(&place(), &here, &unrelated, Some(REACHED));
    assert_eq!(judged, Err(Trouble::OtherTimeline { timeline: 1, here: 3 }));
}

#[test]
fn a_server_that_was_restored_to_before_the_checkpoint_needs_a_resync() {
    let restored = Log { end: Lsn(99), ..log() };
    let judged = judge_place(&place(), &place(), &restored, Some(REACHED));
    assert_eq!(states(judged), Some(Standstill::NeedsResync));
}

#[test]
fn a_slot_at_or_behind_the_checkpoint_is_used() {
    assert_eq!(judge_slot(Some(&slot()), 5, Some(REACHED)), Ok(Use::Free));
    let behind = Slot { confirmed_lsn: Lsn(1), ..slot() };
    assert_eq!(judge_slot(Some(&behind), 5, Some(REACHED)), Ok(Use::Free));
}

#[test]
fn a_slot_that_another_process_has_is_awaited_only_if_it_would_do() {
    let taken = Slot { active_pid: Some(42), ..slot() };
    assert_eq!(judge_slot(Some(&taken), 5, Some(REACHED)), Ok(Use::Taken { pid: 42 }));
    assert_eq!(judge_slot(Some(&taken), 5, None), Ok(Use::Taken { pid: 42 }));
    let ahead = Slot { confirmed_lsn: Lsn(101), ..taken };
    assert!(judge_slot(Some(&ahead), 5, Some(REACHED)).is_err());
}

#[test]
fn any_other_slot_needs_a_resync() {
    let others = [
        Slot { confirmed_lsn: Lsn(101), ..slot() },
        Slot { database_oid: 6, ..slot() },
        Slot { database_oid: 0, ..slot() },
        Slot { plugin: "test_decoding".to_owned(), ..slot() },
        Slot { is_temporary: true, ..slot() },
        Slot { is_two_phase: true, ..slot() },
        Slot { invalidation: Some("the log that it needs has been removed"), ..slot() },
    ];
    for other in &others {
        let trouble = judge_slot(Some(other), 5, Some(REACHED)).err();
        assert_eq!(trouble.map(|it| it.standstill()), Some(Standstill::NeedsResync), "{other:?}");
    }
    assert_eq!(judge_slot(None, 5, Some(REACHED)), Err(Trouble::SlotMissing));
}

#[test]
fn a_slot_left_behind_by_an_unfinished_start_is_ours_to_drop_and_no_other() {
    assert_eq!(judge_slot(None, 5, None), Ok(Use::Free));
    assert_eq!(judge_slot(Some(&slot()), 5, None), Ok(Use::Free));
    let other = Slot { database_oid: 6, ..slot() };
    let trouble = judge_slot(Some(&other), 5, None).err();
    assert_eq!(trouble.map(|it| it.standstill()), Some(Standstill::Error));
}
