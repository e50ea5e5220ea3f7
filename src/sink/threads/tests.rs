//! The threads, driven as a worker's main thread drives them.

use std::sync::mpsc;

use bytes::Bytes;

use super::*;
use crate::sink::{Compression, CountingSink, Counts, LoadShape};

#[test]
fn every_accepted_load_is_done_and_counted() {
    let counts = Arc::new(Counts::default());
    let (mut threads, woken) = started(3, || CountingSink::new(Arc::clone(&counts), Compression::Lz4Frame));
    let mut done = 0;
    for id in 1..=50 {
        let mut job = Job::Load(load(id));
        while let Err(SubmitError::Full(again)) = threads.try_submit(id, job) {
            job = again;
            done += wait_for_done(&threads, &woken);
        }
    }
    while done < 50 {
        done += wait_for_done(&threads, &woken);
    }
    assert_eq!(counts.rows.load(Ordering::Relaxed), 100);
    assert_eq!(threads.shutdown(Duration::from_secs(5)), 0);
}

#[test]
fn submit_to_busy_threads_gives_the_job_back() {
    let (mut threads, _woken) = started(1, || Scripted(|watch: &dyn Watch| hang(watch)));
    let mut accepted = 0;
    let mut id = 0;
    while accepted <= 2 {
        id += 1;
        match threads.try_submit(id, Job::Load(load(id))) {
            Ok(()) => accepted += 1,
            Err(SubmitError::Full(Job::Load(load))) => {
                assert_eq!(load.label.number, id);
                break;
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(accepted <= 2, "one job at work and one waiting, but {accepted} were accepted");
    assert_eq!(threads.shutdown(Duration::from_secs(5)), 0);
}

#[test]
fn panic_becomes_an_event_and_ends_only_its_thread() {
    let (mut threads, woken) = started(1, || Scripted(|_: &dyn Watch| panic!("wrong {}", 7)));
    threads.try_submit(9, Job::Load(load(1))).unwrap();
    let event = wait_for(&threads, &woken);
    let Event::Panicked { thread, id, message } = event else { panic!("{event:?}") };
    assert_eq!((thread.as_str(), id, message.as_str()), ("dbmazz load 1", Some(9), "wrong 7"));
    // The thread ends right after the event.
    let deadline = Instant::now() + Duration::from_secs(5);
    while !matches!(threads.try_submit(10, Job::Load(load(2))), Err(SubmitError::Ended(_))) {
        assert!(Instant::now() < deadline, "jobs are accepted though nobody is there to take them");
    }
    assert_eq!(threads.shutdown(Duration::from_secs(5)), 0);
}

#[test]
fn trouble_is_told_before_the_job_is_done() {
    let (mut threads, woken) = started(1, || {
        Scripted(|watch: &dyn Watch| {
            watch.retrying("no backend");
            watch.retrying("still none");
            Ok(loaded())
        })
    });
    threads.try_submit(4, Job::Load(load(1))).unwrap();
    let told: Vec<_> = (0..4).map(|_| wait_for(&threads, &woken)).collect();
    assert!(matches!(&told[0], Event::Retrying { id: 4, reason } if reason == "no backend"), "{told:?}");
    assert!(matches!(&told[1], Event::Retrying { id: 4, .. }), "{told:?}");
    assert!(matches!(&told[2], Event::Recovered { id: 4 }), "{told:?}");
    assert!(matches!(&told[3], Event::Done { id: 4, outcome: Outcome::Load(_, Ok(_)) }), "{told:?}");
    assert_eq!(threads.shutdown(Duration::from_secs(5)), 0);
}

#[test]
fn job_that_waits_at_the_shutdown_is_not_begun() {
    let begun = Arc::new(AtomicBool::new(false));
    let (mut threads, _woken) = started(1, || {
        let begun = Arc::clone(&begun);
        Scripted(move |watch: &dyn Watch| {
            assert!(!begun.swap(true, Ordering::Relaxed), "a second job was begun");
            hang(watch)
        })
    });
    threads.try_submit(1, Job::Load(load(1))).unwrap();
    while !begun.load(Ordering::Relaxed) {
        thread::yield_now();
    }
    threads.try_submit(2, Job::Load(load(2))).unwrap();
    assert_eq!(threads.shutdown(Duration::from_secs(5)), 0);
    let events: Vec<_> = std::iter::from_fn(|| threads.try_recv()).collect();
    assert!(
        matches!(&events[..], [Event::Done { id: 1, outcome: Outcome::Load(_, Err(LoadError::Stopped)) }]),
        "{events:?}"
    );
    assert!(matches!(threads.try_submit(3, Job::Load(load(3))), Err(SubmitError::Ended(_))));
}

#[test]
fn shutdown_ends_a_request_that_looks_at_nothing() {
    let (interrupt, interrupted) = mpsc::channel();
    let (begin, begun) = mpsc::channel();
    let mut parts = Some(Hanging { begin, interrupted, interrupt });
    let (mut threads, _woken) = started(1, move || parts.take().unwrap());
    threads.try_submit(1, Job::Load(load(1))).unwrap();
    begun.recv_timeout(Duration::from_secs(10)).expect("the load is begun");
    assert_eq!(threads.shutdown(Duration::from_secs(5)), 0);
}

#[test]
fn thread_that_cannot_be_ended_is_counted_and_left() {
    let (begin, begun) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let mut parts = Some((begin, released));
    let (mut threads, _woken) = started(1, move || {
        let (begin, released) = parts.take().unwrap();
        Scripted(move |_: &dyn Watch| {
            begin.send(()).unwrap();
            let _ = released.recv();
            Err(LoadError::Stopped)
        })
    });
    threads.try_submit(1, Job::Load(load(1))).unwrap();
    begun.recv_timeout(Duration::from_secs(10)).expect("the load is begun");
    assert_eq!(threads.shutdown(Duration::from_millis(50)), 1);
    drop(release);
}

/// A sink that waits for its interrupter and for nothing else.
struct Hanging {
    begin: mpsc::Sender<()>,
    interrupted: mpsc::Receiver<()>,
    interrupt: mpsc::Sender<()>,
}

impl Sink for Hanging {
    fn load(&mut self, _: &Load, _: &dyn Watch) -> Result<Loaded, LoadError> {
        self.begin.send(()).unwrap();
        self.interrupted.recv().unwrap();
        Err(LoadError::Stopped)
    }

    fn settle(&mut self, _: &str, _: &Label, _: &dyn Watch) -> Result<LabelFate, LoadError> {
        unreachable!("no test settles")
    }

    fn occupy(&mut self, _: &str, _: &Label, _: &dyn Watch) -> Result<(), LoadError> {
        unreachable!("no test occupies")
    }

    fn truncate(&mut self, _: &TargetTable, _: &dyn Watch) -> Result<(), StatementError> {
        unreachable!("no test truncates")
    }

    fn prepare(&mut self, _: &TableSpec, _: &dyn Watch) -> Result<TableMatch, StatementError> {
        unreachable!("no test prepares")
    }

    fn replace(&mut self, _: &TableSpec, _: &dyn Watch) -> Result<TableMatch, StatementError> {
        unreachable!("no test replaces")
    }

    fn alter(
        &mut self,
        _: &TargetTable,
        _: &[crate::definition::AlterStep],
        _: &dyn Watch,
    ) -> Result<(), StatementError> {
        unreachable!("no test alters")
    }

    fn own(&mut self, _: &str, _: &OwnerStep, _: &dyn Watch) -> Result<Option<OwnerRow>, StatementError> {
        unreachable!("no test claims")
    }

    fn interrupter(&self) -> Interrupter {
        let interrupt = self.interrupt.clone();
        Box::new(move || {
            let _ = interrupt.send(());
        })
    }
}

/// A sink whose loads do what the test says.
struct Scripted<F>(F);

impl<F: FnMut(&dyn Watch) -> Result<Loaded, LoadError> + Send> Sink for Scripted<F> {
    fn load(&mut self, _: &Load, watch: &dyn Watch) -> Result<Loaded, LoadError> {
        (self.0)(watch)
    }

    fn settle(&mut self, _: &str, _: &Label, _: &dyn Watch) -> Result<LabelFate, LoadError> {
        unreachable!("no test settles")
    }

    fn occupy(&mut self, _: &str, _: &Label, _: &dyn Watch) -> Result<(), LoadError> {
        unreachable!("no test occupies")
    }

    fn truncate(&mut self, _: &TargetTable, _: &dyn Watch) -> Result<(), StatementError> {
        unreachable!("no test truncates")
    }

    fn prepare(&mut self, _: &TableSpec, _: &dyn Watch) -> Result<TableMatch, StatementError> {
        unreachable!("no test prepares")
    }

    fn replace(&mut self, _: &TableSpec, _: &dyn Watch) -> Result<TableMatch, StatementError> {
        unreachable!("no test replaces")
    }

    fn alter(
        &mut self,
        _: &TargetTable,
        _: &[crate::definition::AlterStep],
        _: &dyn Watch,
    ) -> Result<(), StatementError> {
        unreachable!("no test alters")
    }

    fn own(&mut self, _: &str, _: &OwnerStep, _: &dyn Watch) -> Result<Option<OwnerRow>, StatementError> {
        unreachable!("no test claims")
    }
}

fn hang(watch: &dyn Watch) -> Result<Loaded, LoadError> {
    while !watch.stopped() {
        thread::yield_now();
    }
    Err(LoadError::Stopped)
}

fn started<S: Sink + 'static>(
    threads: usize,
    mut sink: impl FnMut() -> S,
) -> (LoadThreads, mpsc::Receiver<()>) {
    let (wake, woken) = mpsc::channel();
    let wake = std::sync::Mutex::new(wake);
    let waker: Waker = Arc::new(move || {
        let _ = wake.lock().unwrap().send(());
    });
    let make = || Ok::<_, StartError>(Box::new(sink()) as Box<dyn Sink>);
    (LoadThreads::start(threads, waker, make).unwrap(), woken)
}

/// One wake-up, one event: that is the contract.
fn wait_for(threads: &LoadThreads, woken: &mpsc::Receiver<()>) -> Event {
    woken.recv_timeout(Duration::from_secs(10)).expect("the waker is called");
    threads.try_recv().expect("a wake-up comes with an event")
}

fn wait_for_done(threads: &LoadThreads, woken: &mpsc::Receiver<()>) -> usize {
    let event = wait_for(threads, woken);
    assert!(matches!(event, Event::Done { outcome: Outcome::Load(_, Ok(_)), .. }), "{event:?}");
    1
}

fn loaded() -> Loaded {
    Loaded { rows: 2, bytes_sent: 1, body_bytes: 1, elapsed: Duration::ZERO }
}

fn load(number: u64) -> Load {
    let buffer = Bytes::from_static(b"{\"id\":1,\"__op\":0}\n{\"id\":2,\"__op\":0}\n");
    let target = TargetTable { database: "d".to_owned(), table: "t".to_owned() };
    let shape = LoadShape { target, columns: "`id`,`__op`".to_owned(), partial: false };
    let label = Label { mirror: "m".into(), incarnation: 1, number };
    Load { label, shape: Arc::new(shape), live: std::iter::once(0..buffer.len()).collect(), buffer, rows: 2 }
}
