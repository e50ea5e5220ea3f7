//! The sink against servers that answer with every status there is, or not at all.

use std::io::Read;

use super::super::testing::{
    Body, Golden, Reply, Seen, Server, Then, Worker, config, dead_base, fast, load, within_a_second,
};
use super::*;
use crate::sink::starrocks::Secret;

fn sink(frontend: &Server) -> StarRocksSink {
    StarRocksSink::with_pace(Arc::new(config(&[&frontend.base])), fast()).unwrap()
}

/// What the load above becomes, by way of a frontend that redirects to `backend`.
fn outcome(backend: &Server, states: impl IntoIterator<Item = Reply>) -> (Result<Loaded, LoadError>, Worker) {
    let frontend = Server::frontend([Reply::redirect(&backend.base)]).knowing(states);
    let worker = Worker::default();
    let result = sink(&frontend).load(&load(), &worker);
    (result, worker)
}

fn rows(result: &Result<Loaded, LoadError>) -> Option<u64> {
    result.as_ref().ok().map(|loaded| loaded.rows)
}

fn golden(name: &str, backend: &Server) -> Reply {
    Golden::read(name, &backend.base).reply
}

fn unpacked(seen: &Seen) -> Vec<u8> {
    assert_eq!(seen.header("compression"), Some("lz4_frame"));
    let mut body = Vec::new();
    lz4_flex::frame::FrameDecoder::new(&seen.body[..]).read_to_end(&mut body).unwrap();
    body
}

#[test]
fn load_goes_to_the_backend_as_the_transcript_asks() {
    let backend = Server::backend([Reply::success(3)]);
    let frontend = Server::frontend([golden("fe_redirect.http", &backend)]);
    let worker = Worker::default();
    let loaded = sink(&frontend).load(&load(), &worker).unwrap();
    assert_eq!(worker.reasons(), Vec::<String>::new());

    let asked = frontend.loads();
    let sent = backend.loads();
    assert_eq!((asked.len(), sent.len()), (1, 1));
    let transcript = Golden::read("fe_redirect.http", &backend.base);
    assert_eq!(asked[0].line, transcript.request_line);
    for (name, value) in &transcript.request_headers {
        let ours = asked[0].header(name).unwrap_or_else(|| panic!("header {name} is missing"));
        if !matches!(name.as_str(), "Host" | "label") {
            assert_eq!(ours, value.replace("`, `", "`,`"), "header {name}");
        }
    }
    assert_eq!(asked[0].body.len(), 0);

    assert_eq!(sent[0].header("expect"), None);
    assert_eq!(sent[0].header("label"), Some("dbmazz_m_00000000000000ab_7"));
    assert_eq!(sent[0].header("timeout"), Some("20"));
    assert_eq!(sent[0].header("partial_update"), None);
    assert_eq!(unpacked(&sent[0]), &load().buffer[..]);
    assert_eq!((loaded.rows, loaded.bytes_sent), (3, sent[0].body.len() as u64));
    assert_eq!(loaded.body_bytes, load().buffer.len() as u64);
}

#[test]
fn partial_load_says_so() {
    let backend = Server::backend([Reply::success(3)]);
    let frontend = Server::frontend([Reply::redirect(&backend.base)]);
    let mut load = load();
    Arc::get_mut(&mut load.shape).unwrap().partial = true;
    sink(&frontend).load(&load, &Worker::default()).unwrap();
    let sent = &backend.loads()[0];
    assert_eq!(
        (sent.header("partial_update"), sent.header("partial_update_mode")),
        (Some("true"), Some("row"))
    );
}

#[test]
fn connection_to_the_backend_is_used_again() {
    let backend = Server::backend([golden_success()]);
    let frontend = Server::frontend([Reply::redirect(&backend.base)]);
    let mut sink = sink(&frontend);
    for _ in 0..3 {
        sink.load(&load(), &Worker::default()).unwrap();
    }
    assert_eq!(backend.loads().len(), 3);
    assert_eq!(backend.connections(), 1);
}

fn golden_success() -> Reply {
    Golden::read("be_success.http", "").reply
}

#[test]
fn filtered_rows_are_refused_with_the_servers_log() {
    let backend =
        Server::backend([]).knowing([Reply::http("200 OK", "", "Error: bad amount. Row: {\"id\":2}\n")]);
    let reply = golden("be_filtered_rows.http", &backend);
    let backend = backend.answering([reply]);
    let (result, _) = outcome(&backend, []);
    let Err(LoadError::Refused { refusal, status, message, error_log }) = result else {
        panic!("{result:?}")
    };
    assert_eq!((refusal, status.as_str()), (Refusal::Rows, "Fail"));
    assert_eq!(message, "too many filtered rows");
    assert_eq!(error_log.as_deref(), Some("Error: bad amount. Row: {\"id\":2}"));
    assert_eq!(backend.loads().len(), 1);
}

#[test]
fn only_the_beginning_of_a_long_log_is_fetched() {
    let log = "x".repeat(3 << 20);
    let backend = Server::backend([]).knowing([Reply::http("200 OK", "", &log)]);
    let reply = golden("be_filtered_rows.http", &backend);
    let (result, _) = outcome(&backend.answering([reply]), []);
    let Err(LoadError::Refused { error_log: Some(error_log), .. }) = result else { panic!("{result:?}") };
    assert_eq!(error_log.len(), ERROR_LOG_LINE_CHARS);
}

#[test]
fn refusals_of_the_transcripts_are_final() {
    let cases = [
        ("be_unknown_table.http", Refusal::Table),
        ("be_unknown_database.http", Refusal::Table),
        ("be_bad_label.http", Refusal::Table),
        ("be_empty_load.http", Refusal::Rows),
        ("be_malformed_body.http", Refusal::Rows),
    ];
    for (name, expected) in cases {
        let backend = Server::backend([]);
        let reply = golden(name, &backend);
        let (result, _) = outcome(&backend.answering([reply]), []);
        let Err(LoadError::Refused { refusal, .. }) = result else { panic!("{name}: {result:?}") };
        assert_eq!(refusal, expected, "{name}");
    }
}

#[test]
fn publish_timeout_is_awaited_and_never_sent_again() {
    let backend = Server::backend([golden_of_publish()]);
    let states = [Reply::state("COMMITTED"), Reply::state("COMMITTED"), Reply::state("VISIBLE")];
    let (result, worker) = outcome(&backend, states);
    assert_eq!(rows(&result), Some(3), "{result:?}");
    assert_eq!(backend.loads().len(), 1);
    assert!(worker.reasons()[0].contains("publish timeout"), "{:?}", worker.reasons());
}

fn golden_of_publish() -> Reply {
    Golden::read("be_publish_timeout.http", "").reply
}

#[test]
fn publish_timeout_of_a_forgotten_label_is_success() {
    let backend = Server::backend([golden_of_publish()]);
    let (result, _) = outcome(&backend, [Reply::state("UNKNOWN")]);
    assert_eq!(rows(&result), Some(3), "{result:?}");
}

#[test]
fn label_that_exists_at_the_first_attempt_is_somebody_elses() {
    for name in ["be_label_finished.http", "be_label_running.http"] {
        let backend = Server::backend([Golden::read(name, "").reply]);
        let (result, _) = outcome(&backend, []);
        assert!(matches!(result, Err(LoadError::LabelTaken { .. })), "{name}: {result:?}");
    }
    let old_build = Server::backend([Reply::fail("[CANCELLED] Label [x] has already been used.")]);
    let (result, _) = outcome(&old_build, []);
    assert!(matches!(result, Err(LoadError::LabelTaken { .. })), "{result:?}");
}

#[test]
fn label_that_exists_after_an_own_attempt_is_our_load() {
    let finished = Golden::read("be_label_finished.http", "").reply;
    let backend = Server::backend([Reply::fail("too many versions"), finished]);
    let (result, _) = outcome(&backend, [Reply::state("VISIBLE")]);
    assert_eq!(rows(&result), Some(3), "{result:?}");
    assert_eq!(backend.loads().len(), 2);
}

#[test]
fn label_still_running_is_awaited() {
    let running = Golden::read("be_label_running.http", "").reply;
    let backend = Server::backend([Reply::fail("memory limit exceeded"), running]);
    let states = [Golden::read("state_prepare.http", "").reply, Golden::read("state_visible.http", "").reply];
    let (result, _) = outcome(&backend, states);
    assert_eq!(rows(&result), Some(3), "{result:?}");
    assert_eq!(backend.loads().len(), 2);
}

#[test]
fn duplicate_that_an_old_build_calls_fail_is_asked_for() {
    let duplicate = Reply::fail("[CANCELLED] Label [x] has already been used.");
    let backend = Server::backend([Reply::fail("too many versions"), duplicate]);
    let (result, _) = outcome(&backend, [Reply::state("VISIBLE")]);
    assert_eq!(rows(&result), Some(3), "{result:?}");
}

#[test]
fn load_cut_after_the_commit_is_not_sent_again() {
    let backend = Server::backend([Reply::nothing(Then::Close)]);
    let (result, worker) = outcome(&backend, [Reply::state("PREPARE"), Reply::state("VISIBLE")]);
    assert_eq!(rows(&result), Some(3), "{result:?}");
    assert_eq!(backend.loads().len(), 1);
    assert!(worker.reasons()[0].contains("lost backend"), "{:?}", worker.reasons());
}

#[test]
fn load_cut_before_the_commit_is_sent_again_as_it_was() {
    for state in ["ABORTED", "UNKNOWN"] {
        let backend = Server::backend([Reply::nothing(Then::Close), Reply::success(3)]);
        let (result, _) = outcome(&backend, [Reply::state(state)]);
        assert_eq!(rows(&result), Some(3), "{state}: {result:?}");
        let sent = backend.loads();
        assert_eq!(sent.len(), 2, "{state}");
        assert_eq!(sent[0].body, sent[1].body);
        assert_eq!(sent[0].header("label"), sent[1].header("label"));
    }
}

#[test]
fn outcome_that_the_backend_does_not_know_is_asked_for() {
    let unknown = Reply::fail("Transaction status unknown, you can retry with same label.");
    let backend = Server::backend([unknown]);
    let (result, _) = outcome(&backend, [Reply::state("VISIBLE")]);
    assert_eq!(rows(&result), Some(3), "{result:?}");
    assert_eq!(backend.loads().len(), 1);
}

#[test]
fn page_of_a_proxy_is_an_unknown_outcome() {
    for page in [Reply::http("502 Bad Gateway", "", "<html>"), Reply::http("200 OK", "", "<html>")] {
        let backend = Server::backend([page]);
        let (result, _) = outcome(&backend, [Reply::state("VISIBLE")]);
        assert_eq!(rows(&result), Some(3), "{result:?}");
        assert_eq!(backend.loads().len(), 1);
    }
}

#[test]
fn running_load_is_cancelled_when_patience_ends() {
    let mut replies = vec![Reply::state("PREPARE"); 200];
    replies.push(Reply::state("ABORTED"));
    let backend = Server::backend([Reply::nothing(Then::Close), Reply::success(3)]);
    let frontend = Server::frontend([Reply::redirect(&backend.base)]).knowing(replies);
    let result = sink(&frontend).load(&load(), &Worker::default());
    assert_eq!(rows(&result), Some(3), "{result:?}");
    let cancel = &frontend.cancels()[0].line;
    let label = "dbmazz_m_00000000000000ab_7";
    assert_eq!(*cancel, format!("POST /api/shop/{label}/_cancel?label={label} HTTP/1.1"));
}

#[test]
fn trouble_is_retried_with_the_reason_told() {
    for message in
        ["Too many versions, current/limit: 1001/1000", "Memory limit exceeded", "Service is shutting down"]
    {
        let backend = Server::backend([Reply::fail(message), Reply::success(3)]);
        let (result, worker) = outcome(&backend, []);
        assert_eq!(rows(&result), Some(3), "{message}: {result:?}");
        assert_eq!(worker.reasons(), [message]);
    }
}

#[test]
fn frontend_without_a_backend_is_retried() {
    let backend = Server::backend([Reply::success(3)]);
    let none = Golden::read("fe_no_backend.http", "").reply;
    let frontend = Server::frontend([none, Reply::redirect(&backend.base)]);
    let worker = Worker::default();
    let result = sink(&frontend).load(&load(), &worker);
    assert_eq!(rows(&result), Some(3), "{result:?}");
    assert!(worker.reasons()[0].contains("No backend alive"), "{:?}", worker.reasons());
}

#[test]
fn message_that_nobody_knows_is_refused_when_patience_ends() {
    let backend = Server::backend([Reply::fail("the moon is full")]);
    let (result, worker) = outcome(&backend, []);
    assert!(
        matches!(&result, Err(LoadError::Refused { message, .. }) if message == "the moon is full"),
        "{result:?}"
    );
    assert!(worker.reasons().len() > 1, "it was not tried again");
}

#[test]
fn count_of_rows_must_agree() {
    let (result, _) = outcome(&Server::backend([Reply::success(2)]), []);
    assert_eq!(result, Err(LoadError::CountMismatch { sent: 3, loaded: 2 }));
    let (result, _) = outcome(&Server::backend([Reply::json("{\"Status\":\"Success\"}")]), []);
    assert_eq!(result, Err(LoadError::CountMismatch { sent: 3, loaded: 0 }));
}

#[test]
fn wrong_password_is_retried_until_it_is_right() {
    let backend_says = Golden::read("be_auth_wrong_password.http", "").reply;
    let backend = Server::backend([backend_says, Reply::success(3)]);
    let denied = Golden::read("fe_auth_wrong_password.http", "").reply;
    let frontend = Server::frontend([denied, Reply::redirect(&backend.base)]);
    let worker = Worker::default();
    let result = sink(&frontend).load(&load(), &worker);
    assert_eq!(rows(&result), Some(3), "{result:?}");
    let reasons = worker.reasons();
    assert_eq!(reasons.len(), 2);
    assert!(reasons.iter().all(|reason| reason.contains("Access denied")), "{reasons:?}");
}

#[test]
fn password_file_is_read_for_each_attempt() {
    let path = std::env::temp_dir().join(format!("dbmazz_password_{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let backend = Server::backend([Reply::success(3)]);
    let frontend = Server::frontend([Reply::redirect(&backend.base)]);
    let mut config = config(&[&frontend.base]);
    config.password = Secret::File(path.clone());
    let mut sink = StarRocksSink::with_pace(Arc::new(config), fast()).unwrap();
    let worker = Worker::default();
    std::thread::scope(|scope| {
        let loading = scope.spawn(|| sink.load(&load(), &worker));
        worker.wait_for_trouble();
        assert!(worker.reasons()[0].contains("could not read password file"), "{:?}", worker.reasons());
        std::fs::write(&path, "s:cret\n").unwrap();
        assert_eq!(rows(&loading.join().unwrap()), Some(3));
    });
    std::fs::remove_file(&path).unwrap();
    // root:s:cret
    assert_eq!(backend.loads()[0].header("authorization"), Some("Basic cm9vdDpzOmNyZXQ="));
}

#[test]
fn server_that_cannot_unpack_gets_the_same_rows_plain() {
    for message in ["Unsupported compression type: LZ4_FRAME", "illegal json started with [\\u0004]"] {
        let backend = Server::backend([Reply::fail(message), Reply::success(3)]);
        let (result, _) = outcome(&backend, []);
        assert_eq!(rows(&result), Some(3), "{message}: {result:?}");
        let sent = backend.loads();
        assert_eq!(unpacked(&sent[0]), sent[1].body);
        assert_eq!(sent[1].header("compression"), None);
        assert_eq!(sent[0].header("label"), sent[1].header("label"));
    }
}

#[test]
fn settled_label_is_final() {
    let cases = [
        (vec!["VISIBLE"], LabelFate::Visible),
        (vec!["PREPARE", "COMMITTED", "VISIBLE"], LabelFate::Visible),
        (vec!["PREPARE", "ABORTED"], LabelFate::Aborted),
        (vec!["UNKNOWN"], LabelFate::Unknown),
    ];
    for (states, expected) in cases {
        let frontend = Server::frontend([]).knowing(states.iter().map(|state| Reply::state(state)));
        let fate = sink(&frontend).settle("shop", &load().label, &Worker::default());
        assert_eq!(fate, Ok(expected), "{states:?}");
    }
    for (name, expected) in [
        ("state_visible.http", LabelFate::Visible),
        ("state_aborted.http", LabelFate::Aborted),
        ("state_unknown.http", LabelFate::Unknown),
        ("state_unknown_database.http", LabelFate::Unknown),
    ] {
        let frontend = Server::frontend([]).knowing([Golden::read(name, "").reply]);
        let fate = sink(&frontend).settle("shop", &load().label, &Worker::default());
        assert_eq!(fate, Ok(expected), "{name}");
    }
}

#[test]
fn label_is_asked_for_again_after_wrong_credentials() {
    let denied = Golden::read("state_auth_wrong_password.http", "").reply;
    let frontend = Server::frontend([]).knowing([denied, Reply::state("VISIBLE")]);
    let worker = Worker::default();
    assert_eq!(sink(&frontend).settle("shop", &load().label, &worker), Ok(LabelFate::Visible));
    assert!(worker.reasons()[0].contains("Access denied"));
}

#[test]
fn backends_alone_cannot_settle_a_label() {
    let backend = Server::backend([]);
    let fate = sink(&backend).settle("shop", &load().label, &Worker::default());
    assert_eq!(fate, Err(LoadError::NoFrontend));
}

#[test]
fn shutdown_ends_a_long_wait() {
    let mut pace = fast();
    pace.trouble.first = std::time::Duration::from_secs(3600);
    pace.trouble.cap = pace.trouble.first;
    let dead = dead_base();
    let mut sink = StarRocksSink::with_pace(Arc::new(config(&[&dead])), pace).unwrap();
    let worker = Worker::default();
    std::thread::scope(|scope| {
        let loading = scope.spawn(|| sink.load(&load(), &worker));
        worker.wait_for_trouble();
        worker.stop();
        let result = within_a_second(|| loading.join().unwrap());
        assert_eq!(result, Err(LoadError::Stopped));
    });
}

#[test]
fn shutdown_ends_a_request_that_hangs() {
    let backend = Server::backend([Reply::nothing(Then::Hold)]);
    let frontend = Server::frontend([Reply::redirect(&backend.base)]);
    let mut sink = sink(&frontend);
    let interrupt = sink.interrupter();
    let worker = Worker::default();
    std::thread::scope(|scope| {
        let loading = scope.spawn(|| sink.load(&load(), &worker));
        backend.wait_for_a_load();
        worker.stop();
        let result = within_a_second(|| {
            interrupt();
            loading.join().unwrap()
        });
        assert_eq!(result, Err(LoadError::Stopped));
    });
}

#[test]
fn statement_is_retried_until_the_worker_stops() {
    let frontend = Server::frontend([]);
    let mut sink = sink(&frontend);
    let worker = Worker::default();
    std::thread::scope(|scope| {
        let truncating = scope.spawn(|| sink.truncate(&load().shape.target, &worker));
        worker.wait_for_trouble();
        worker.stop();
        assert_eq!(within_a_second(|| truncating.join().unwrap()), Err(StatementError::Stopped));
    });
    assert!(
        worker.reasons()[0].contains("could not reach StarRocks at \"127.0.0.1:9\""),
        "{:?}",
        worker.reasons()
    );
}

#[test]
fn early_answer_of_a_backend_that_does_not_read_is_not_success() {
    let early = Reply { body: Body::Left, then: Then::Close, ..Reply::fail("too many versions") };
    let backend = Server::backend([early, Reply::success(3)]);
    let (result, _) = outcome(&backend, [Reply::state("ABORTED")]);
    assert_eq!(rows(&result), Some(3), "{result:?}");
}
