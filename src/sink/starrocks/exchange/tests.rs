//! One attempt against raw sockets: hops, fail-over, and what was measured of the HTTP library.

use std::time::Duration;

use ureq::http::{HeaderName, HeaderValue};

use super::super::config::StarRocksConfig;
use super::super::testing::{Body, Golden, Reply, Server, Then, config, dead_base, within_a_second};
use super::*;

const PATH: &str = "/api/shop/orders/_stream_load";

fn attempt(config: &StarRocksConfig) -> Attempt {
    attempts(config, 1).remove(0)
}

fn attempts(config: &StarRocksConfig, times: usize) -> Vec<Attempt> {
    let http = Http::new(config).unwrap();
    let urls = config.load_urls.clone();
    let mut endpoints = Endpoints::new(urls, config.backend_host.clone(), config.database.clone());
    let headers = [(HeaderName::from_static("authorization"), HeaderValue::from_static("Basic cm9vdDo="))];
    let request = Request { path: PATH, headers: &headers, body: b"{}\n" };
    (0..times).map(|_| endpoints.put(&http, &request)).collect()
}

fn is_success(attempt: &Attempt) -> bool {
    matches!(attempt, Attempt::Answered { answer, by: Role::Backend } if answer.status == "Success")
}

#[test]
fn redirect_comes_back_at_once_though_the_frontend_keeps_the_connection() {
    let backend = Server::backend([Reply::success(1)]);
    let frontend = Server::frontend([Reply { then: Then::Hold, ..Reply::redirect(&backend.base) }]);
    let attempt = within_a_second(|| attempt(&config(&[&frontend.base])));
    assert!(is_success(&attempt), "{attempt:?}");
    let asked = &frontend.loads()[0];
    assert_eq!((asked.header("expect"), asked.header("content-length")), (Some("100-continue"), Some("0")));
}

#[test]
fn body_of_an_error_status_is_read() {
    let frontend = Server::frontend([Reply::unauthorized()]);
    let attempt = attempt(&config(&[&frontend.base]));
    assert!(
        matches!(&attempt, Attempt::Credentials(reason) if reason.contains("Access denied")),
        "{attempt:?}"
    );
}

#[test]
fn login_goes_with_every_hop_and_the_body_with_the_last() {
    let backend = Server::backend([Reply::success(1)]);
    let leader = Server::frontend([Reply::redirect(&backend.base)]);
    let follower = Server::frontend([Reply::redirect(&leader.base)]);
    let attempt = attempt(&config(&[&follower.base]));
    assert!(is_success(&attempt), "{attempt:?}");
    for (server, body) in [(&follower, 0), (&leader, 0), (&backend, 3)] {
        let seen = &server.loads()[0];
        assert_eq!(seen.header("authorization"), Some("Basic cm9vdDo="));
        assert_eq!(seen.body.len(), body);
    }
}

#[test]
fn backend_gets_the_body_without_expect_and_nothing_before_it() {
    let backend = Server::backend([Reply::success(1)]);
    let attempt = attempt(&config(&[&backend.base]));
    assert!(is_success(&attempt), "{attempt:?}");
    let sent = backend.loads();
    assert_eq!(sent.len(), 1, "a backend that is named directly begins a transaction at any PUT");
    assert_eq!((sent[0].header("expect"), sent[0].header("content-length")), (None, Some("3")));
}

#[test]
fn redirects_in_a_circle_end() {
    let frontend =
        Server::frontend([Reply::http("307 Temporary Redirect", &format!("Location: {PATH}\r\n"), "")]);
    let attempt = attempt(&config(&[&frontend.base]));
    assert!(matches!(&attempt, Attempt::NotBegun(reason) if reason.contains("5 redirects")), "{attempt:?}");
    assert_eq!(frontend.loads().len(), MAX_HOPS);
}

#[test]
fn dead_frontend_is_passed_over_and_not_asked_again() {
    let backend = Server::backend([Reply::success(1)]);
    let frontend = Server::frontend([Reply::redirect(&backend.base)]);
    let broken = Server::frontend([Reply::http("500 Internal Server Error", "", "{\"status\":\"FAILED\"}")]);
    let config = config(&[&dead_base(), &broken.base, &frontend.base]);
    let all = attempts(&config, 2);
    assert!(all.iter().all(is_success), "{all:?}");
    assert_eq!((broken.loads().len(), frontend.loads().len()), (1, 2));
}

#[test]
fn backend_that_is_gone_has_not_begun_the_load() {
    let frontend = Server::frontend([Reply::redirect(&dead_base())]);
    let attempt = attempt(&config(&[&frontend.base]));
    assert!(matches!(attempt, Attempt::NotBegun(_)), "{attempt:?}");
}

#[test]
fn host_of_a_redirect_is_replaced() {
    let backend = Server::backend([Reply::success(1)]);
    let inside = backend.base.replace("127.0.0.1", "backend.inside.invalid");
    let frontend = Server::frontend([Reply::redirect(&inside)]);
    let mut config = config(&[&frontend.base]);
    config.backend_host = Some("127.0.0.1".to_owned());
    let attempt = attempt(&config);
    assert!(is_success(&attempt), "{attempt:?}");
}

#[test]
fn answer_that_breaks_off_leaves_the_outcome_unknown() {
    let mut half = Reply::success(1);
    half.bytes.truncate(half.bytes.len() - 5);
    half.then = Then::Close;
    let backend = Server::backend([half]);
    let attempt = attempt(&config(&[&backend.base]));
    assert!(matches!(attempt, Attempt::Unknown(_)), "{attempt:?}");
}

#[test]
fn backend_that_never_answers_is_given_up_after_the_load_timeout() {
    let backend = Server::backend([Reply::nothing(Then::Hold)]);
    let config = config(&[&backend.base]);
    let http = Http::new(&config).unwrap().with_answer_timeout(Duration::from_millis(50));
    let failure = within_a_second(|| http.put_body(&format!("{}{PATH}", backend.base), &[], b"{}\n"));
    assert!(matches!(failure, Err(Failure::Cut(_))), "{failure:?}");
}

#[test]
fn frontend_that_wants_expect_is_never_taken_for_a_backend_twice() {
    let missing = Golden::read("fe_missing_expect.http", "").reply;
    let backend = Server::backend([missing]);
    let attempt = attempt(&config(&[&backend.base]));
    assert!(matches!(&attempt, Attempt::NotBegun(reason) if reason.contains("100-continue")), "{attempt:?}");
}

#[test]
fn large_body_reaches_a_backend_that_reads_slowly() {
    let backend = Server::backend([Reply { body: Body::Read, ..Reply::success(1) }]);
    let config = config(&[&backend.base]);
    let http = Http::new(&config).unwrap();
    let body = vec![b' '; 8 * 1024 * 1024];
    let answer = http.put_body(&format!("{}{PATH}", backend.base), &[], &body).unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(backend.loads()[0].body.len(), body.len());
}
