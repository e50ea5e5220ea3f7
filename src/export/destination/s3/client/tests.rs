//! The client against a server that has read the whole of a request, and answers when it likes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::*;

const PART: &[u8] = b"a part";

/// A client, and where its server says that it has a part, and that it has answered. Without a delay it never answers.
fn client(delay: Option<Duration>) -> (Arc<Client>, Receiver<&'static str>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let config = S3Config::from_options(
        &[pair("endpoint", &endpoint)],
        &[pair("access_key", "key"), pair("secret", "secret")],
    );
    let config = S3Config { bucket: "bucket".to_owned(), ..config.unwrap() };
    let (tell, told) = channel();
    thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut request = BufReader::new(&stream);
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            request.read_line(&mut line).unwrap();
        }
        let mut part = [0; PART.len()];
        request.read_exact(&mut part).unwrap();
        assert_eq!(part, PART);
        tell.send("it is there").unwrap();
        let Some(delay) = delay else {
            // Until the client cuts the connection.
            let _ = request.read(&mut [0]);
            return;
        };
        thread::sleep(delay);
        tell.send("it is done").unwrap();
        (&stream).write_all(b"HTTP/1.1 200 OK\r\nETag: \"it\"\r\nContent-Length: 0\r\n\r\n").unwrap();
    });
    (Arc::new(Client::new(&config).unwrap()), told)
}

#[test]
fn client_that_stops_waits_for_what_the_server_has() {
    let (client, told) = client(Some(Duration::from_millis(300)));
    let sender = Arc::clone(&client);
    let put = thread::spawn(move || sender.put_part("name", "upload", 1, PART));
    assert_eq!(told.recv().unwrap(), "it is there");
    client.stop();
    assert_eq!(told.try_recv(), Ok("it is done"));
    assert_eq!(put.join().unwrap().unwrap(), "\"it\"");
}

#[test]
fn client_that_stops_cuts_off_who_does_not_answer() {
    let (client, told) = client(None);
    let sender = Arc::clone(&client);
    let put = thread::spawn(move || sender.put_part("name", "upload", 1, PART));
    assert_eq!(told.recv().unwrap(), "it is there");
    let begun = Instant::now();
    client.stop();
    assert!(begun.elapsed() >= GRACE);
    assert!(matches!(put.join().unwrap(), Err(StoreError::Unreachable { .. })));
    assert!(begun.elapsed() < GRACE * 5);
}
