//! Requests, one after another: signed, sent, repeated while that may help.

use std::hash::{BuildHasher, RandomState};
use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rusty_s3::actions::{CreateMultipartUpload, ListObjectsV2, S3Action};
use rusty_s3::{Bucket, Credentials};
use ureq::Agent;
use ureq::http::Response;

use super::super::{Existing, Object, StoreError};
use super::config::{S3Config, UrlStyle};
use crate::server_options::tls;

/// The connections to one bucket.
pub(super) struct Client {
    agent: Agent,
    bucket: Bucket,
    credentials: Credentials,
    prefix: String,
    endpoint: String,
    retry_timeout: Duration,
    /// Set when nobody wants the answers any more.
    stopped: AtomicBool,
    /// Requests that have no answer yet.
    in_flight: AtomicUsize,
}

/// What came back, when it is good.
pub(super) struct Answer {
    pub(super) etag: Option<String>,
    pub(super) length: Option<u64>,
    pub(super) body: Vec<u8>,
}

/// How a request is sent.
enum Method<'a> {
    Get { range: Option<(u64, u64)>, of: Option<&'a str> },
    Head,
    Put(&'a [u8], Existing),
    Post(&'a [u8], Existing),
    Delete,
}

impl Client {
    pub(super) fn new(config: &S3Config) -> Result<Self, StoreError> {
        let invalid = |reason: String| StoreError::Configuration { reason };
        let tls = tls(config.ca_file.as_deref(), config.tls_verify).map_err(|it| invalid(it.to_string()))?;
        let agent = Agent::config_builder()
            // The environment's proxy is not for a database server.
            .proxy(None)
            .max_redirects(0)
            .http_status_as_error(false)
            .user_agent(concat!("dbmazz/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls)
            .timeout_resolve(Some(config.connect_timeout))
            .timeout_connect(Some(config.connect_timeout))
            .timeout_send_request(Some(config.request_timeout))
            .timeout_send_body(Some(config.request_timeout))
            .timeout_recv_response(Some(config.request_timeout))
            .timeout_recv_body(Some(config.request_timeout))
            .build()
            .new_agent();
        let style = match config.url_style {
            UrlStyle::Path => rusty_s3::UrlStyle::Path,
            UrlStyle::Host => rusty_s3::UrlStyle::VirtualHost,
        };
        let url = config.endpoint.parse().map_err(|_| invalid("the endpoint is no URL".to_owned()))?;
        let bucket = Bucket::new(url, style, config.bucket.clone(), config.region.clone())
            .map_err(|problem| invalid(problem.to_string()))?;
        let secret = config.secret.reveal().map_err(invalid)?;
        Ok(Self {
            agent,
            bucket,
            credentials: Credentials::new(config.access_key.clone(), secret),
            prefix: config.prefix.clone(),
            endpoint: config.endpoint.clone(),
            retry_timeout: config.retry_timeout,
            stopped: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
        })
    }

    /// Sends no more, and cuts off what has no answer within [`GRACE`]. Of no use afterwards.
    ///
    /// A request that the server has whole is carried out whether or not anybody waits for its answer. A part that arrives like
    /// that after its upload has been aborted would stay.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        let end = Instant::now() + GRACE;
        while self.in_flight.load(Ordering::SeqCst) > 0 && Instant::now() < end {
            std::thread::sleep(SLICE);
        }
        self.agent.clone().shutdown();
    }

    /// The same client for last requests: it gives up soon.
    pub(super) fn for_the_end(config: &S3Config) -> Result<Self, StoreError> {
        let soon = Duration::from_secs(5);
        Self::new(&S3Config {
            connect_timeout: config.connect_timeout.min(soon),
            request_timeout: config.request_timeout.min(soon),
            retry_timeout: config.retry_timeout.min(soon),
            ..config.clone()
        })
    }

    pub(super) fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Bytes of an object, and the version that it is now.
    pub(super) fn head(&self, name: &str) -> Result<Option<(u64, String)>, StoreError> {
        let key = self.key(name);
        let sign = || self.bucket.head_object(Some(&self.credentials), &key).sign(VALID);
        match self.send(name, &sign, &Method::Head) {
            Ok(answer) => Ok(Some((answer.length.unwrap_or_default(), answer.etag.unwrap_or_default()))),
            Err(StoreError::Missing { .. }) => Ok(None),
            Err(problem) => Err(problem),
        }
    }

    pub(super) fn size(&self, name: &str) -> Result<Option<u64>, StoreError> {
        Ok(self.head(name)?.map(|(size, _)| size))
    }

    /// So many bytes of a version of an object.
    pub(super) fn get(&self, name: &str, etag: &str, from: u64, to: u64) -> Result<Vec<u8>, StoreError> {
        let key = self.key(name);
        let sign = || self.bucket.get_object(Some(&self.credentials), &key).sign(VALID);
        Ok(self.send(name, &sign, &Method::Get { range: Some((from, to)), of: Some(etag) })?.body)
    }

    pub(super) fn put(&self, name: &str, bytes: &[u8], existing: Existing) -> Result<(), StoreError> {
        let key = self.key(name);
        let sign = || self.bucket.put_object(Some(&self.credentials), &key).sign(VALID);
        self.send(name, &sign, &Method::Put(bytes, existing)).map(|_| ())
    }

    pub(super) fn delete(&self, name: &str) -> Result<(), StoreError> {
        let key = self.key(name);
        let sign = || self.bucket.delete_object(Some(&self.credentials), &key).sign(VALID);
        match self.send(name, &sign, &Method::Delete) {
            Ok(_) | Err(StoreError::Missing { .. }) => Ok(()),
            Err(problem) => Err(problem),
        }
    }

    pub(super) fn list(&self, prefix: &str) -> Result<Vec<Object>, StoreError> {
        let prefix = self.key(prefix);
        let (mut found, mut token) = (Vec::new(), None::<String>);
        loop {
            let sign = || {
                let mut list = self.bucket.list_objects_v2(Some(&self.credentials));
                list.with_prefix(prefix.as_str());
                if let Some(token) = &token {
                    list.with_continuation_token(token.as_str());
                }
                list.sign(VALID)
            };
            let answer = self.send(&prefix, &sign, &Method::Get { range: None, of: None })?;
            let page = ListObjectsV2::parse_response(&text_of(&answer.body))
                .map_err(|problem| self.malformed(&problem.to_string()))?;
            for object in page.contents {
                if let Some(name) = object.key.strip_prefix(&self.prefix).filter(|name| !name.is_empty()) {
                    found.push(Object { name: name.to_owned(), size: object.size.unwrap_or_default() });
                }
            }
            token = page.next_continuation_token.filter(|token| !token.is_empty());
            if token.is_none() {
                break;
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Begins an upload in parts; its number.
    pub(super) fn begin_upload(&self, name: &str) -> Result<String, StoreError> {
        let key = self.key(name);
        let sign = || self.bucket.create_multipart_upload(Some(&self.credentials), &key).sign(VALID);
        let answer = self.send(name, &sign, &Method::Post(&[], Existing::Replace))?;
        let begun = CreateMultipartUpload::parse_response(&text_of(&answer.body))
            .map_err(|problem| self.malformed(&problem.to_string()))?;
        Ok(begun.upload_id().to_owned())
    }

    /// Sends a part; what the server calls it.
    pub(super) fn put_part(
        &self,
        name: &str,
        upload: &str,
        number: u16,
        bytes: &[u8],
    ) -> Result<String, StoreError> {
        let key = self.key(name);
        let sign = || self.bucket.upload_part(Some(&self.credentials), &key, number, upload).sign(VALID);
        let answer = self.send(name, &sign, &Method::Put(bytes, Existing::Replace))?;
        answer.etag.ok_or_else(|| self.malformed("a part has no ETag"))
    }

    /// Makes an object of the parts, which have so many bytes together.
    pub(super) fn complete_upload(
        &self,
        name: &str,
        upload: &str,
        etags: &[String],
        bytes: u64,
        existing: Existing,
    ) -> Result<(), StoreError> {
        let key = self.key(name);
        let action = || {
            let etags = etags.iter().map(String::as_str);
            self.bucket.complete_multipart_upload(Some(&self.credentials), &key, upload, etags)
        };
        let body = action().body();
        let result = self.send(name, &|| action().sign(VALID), &Method::Post(body.as_bytes(), existing));
        match result {
            Ok(_) => Ok(()),
            // An earlier attempt may have done it, and only its answer was lost.
            Err(StoreError::Missing { .. } | StoreError::Refused { .. })
                if self.size(name)? == Some(bytes) =>
            {
                Ok(())
            }
            Err(StoreError::Missing { .. }) => Err(self.malformed("the upload is not known any more")),
            Err(problem) => Err(problem),
        }
    }

    pub(super) fn abort_upload(&self, key: &str, upload: &str) -> Result<(), StoreError> {
        let sign = || self.bucket.abort_multipart_upload(Some(&self.credentials), key, upload).sign(VALID);
        match self.send(key, &sign, &Method::Delete) {
            Ok(_) | Err(StoreError::Missing { .. }) => Ok(()),
            Err(problem) => Err(problem),
        }
    }

    /// Uploads below the prefix that were begun and neither completed nor aborted: key and number.
    pub(super) fn unfinished(&self) -> Result<Vec<(String, String)>, StoreError> {
        let sign = || {
            let mut list = self.bucket.get_object(Some(&self.credentials), "");
            list.query_mut().insert("uploads", "");
            list.query_mut().insert("prefix", self.prefix.as_str());
            list.sign(VALID)
        };
        let answer = match self.send(&self.prefix, &sign, &Method::Get { range: None, of: None }) {
            // Servers that cannot list them.
            Err(StoreError::Refused { code, .. }) if code == "NotImplemented" => return Ok(vec![]),
            answer => answer?,
        };
        let text = text_of(&answer.body);
        let uploads = text.split("<Upload>").skip(1);
        let pair = |upload: &str| Some((element(upload, "Key")?, element(upload, "UploadId")?));
        Ok(uploads.filter_map(pair).filter(|(key, _)| key.starts_with(&self.prefix)).collect())
    }

    fn send(
        &self,
        name: &str,
        sign: &dyn Fn() -> url::Url,
        method: &Method<'_>,
    ) -> Result<Answer, StoreError> {
        let deadline = Instant::now() + self.retry_timeout;
        let mut pause = FIRST_PAUSE;
        let mut was_cut = false;
        loop {
            self.in_flight.fetch_add(1, Ordering::SeqCst);
            let sent = self.send_once(sign().as_str(), method);
            let judged = sent.map(|response| self.judge(name, response, method, was_cut));
            self.in_flight.fetch_sub(1, Ordering::SeqCst);
            let reason = match judged {
                Ok(Verdict::Done(answer)) => return answer,
                Ok(Verdict::Repeat(reason)) => reason,
                Err(reason) => {
                    was_cut = true;
                    reason
                }
            };
            if self.stopped.load(Ordering::SeqCst) || Instant::now() + pause > deadline {
                return Err(StoreError::Unreachable { endpoint: self.endpoint.clone(), reason });
            }
            self.rest(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// The reason has no URL in it, since that has a signature.
    fn send_once(&self, url: &str, method: &Method<'_>) -> Result<Response<ureq::Body>, String> {
        let unless_there =
            |existing: &Existing| (*existing == Existing::Keep).then_some(("if-none-match", "*"));
        let sent = match method {
            Method::Get { range, of } => {
                let mut request = self.agent.get(url);
                if let Some((from, to)) = range {
                    request = request.header("range", format!("bytes={from}-{}", to.saturating_sub(1)));
                }
                if let Some(etag) = of {
                    request = request.header("if-match", *etag);
                }
                request.call()
            }
            Method::Head => self.agent.head(url).call(),
            Method::Delete => self.agent.delete(url).call(),
            Method::Put(body, existing) | Method::Post(body, existing) => {
                let is_put = matches!(method, Method::Put(..));
                let mut request = if is_put { self.agent.put(url) } else { self.agent.post(url) };
                if let Some((name, value)) = unless_there(existing) {
                    request = request.header(name, value);
                }
                request.send(*body)
            }
        };
        sent.map_err(|problem| match problem {
            ureq::Error::BadUri(_) => "the URL is not valid".to_owned(),
            other => other.to_string(),
        })
    }

    fn judge(
        &self,
        name: &str,
        response: Response<ureq::Body>,
        method: &Method<'_>,
        was_cut: bool,
    ) -> Verdict {
        let status = response.status().as_u16();
        let header = |name: &str| {
            response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
        };
        let (etag, length) = (header("etag"), header("content-length").and_then(|text| text.parse().ok()));
        let mut body = Vec::new();
        if !matches!(method, Method::Head)
            && let Err(problem) =
                response.into_body().into_reader().take(MAX_ANSWER_BYTES).read_to_end(&mut body)
        {
            return Verdict::Repeat(problem.to_string());
        }
        let text =
            if status >= 300 || matches!(method, Method::Post(..)) { text_of(&body) } else { String::new() };
        // Completing answers 200 at once, and may say in the body that it failed.
        let is_error = text.trim_start().contains("<Error>");
        if status < 300 && !is_error {
            return match method {
                Method::Get { range: Some((from, to)), .. } if body.len() as u64 != to - from => {
                    Verdict::Repeat(format!("{} bytes came instead of {}", body.len(), to - from))
                }
                _ => Verdict::Done(Ok(Answer { etag, length, body })),
            };
        }
        let code = element(&text, "Code").unwrap_or_default();
        let message = element(&text, "Message").unwrap_or_default();
        let may_pass = matches!(status, 408 | 409 | 429 | 500..)
            || matches!(code.as_str(), "RequestTimeout" | "SlowDown" | "InternalError");
        if may_pass && code != "NotImplemented" {
            return Verdict::Repeat(format!("HTTP status {status} {code} {message}").trim_end().to_owned());
        }
        Verdict::Done(self.refusal(name, status, code, message, method, was_cut))
    }

    fn refusal(
        &self,
        name: &str,
        status: u16,
        code: String,
        message: String,
        method: &Method<'_>,
        was_cut: bool,
    ) -> Result<Answer, StoreError> {
        match (status, method) {
            (404, _) if code != "NoSuchBucket" => Err(StoreError::Missing { name: name.to_owned() }),
            // The attempt whose answer was lost may have made the object.
            (412, Method::Put(bytes, _)) if was_cut && self.size(name)? == Some(bytes.len() as u64) => {
                Ok(Answer { etag: None, length: None, body: vec![] })
            }
            (412, Method::Put(..) | Method::Post(..)) => Err(StoreError::Exists { name: name.to_owned() }),
            _ => Err(StoreError::Refused { endpoint: self.endpoint.clone(), status, code, message }),
        }
    }

    fn malformed(&self, what: &str) -> StoreError {
        let message = format!("the answer cannot be read: {what}");
        StoreError::Refused { endpoint: self.endpoint.clone(), status: 200, code: String::new(), message }
    }

    /// Between half of the pause and all of it, in slices that notice a stop.
    fn rest(&self, pause: Duration) {
        // RandomState is seeded by the system: a random number without a dependency.
        let random = RandomState::new().hash_one(0_u64) % 1000;
        let end = Instant::now() + pause / 2 + pause / 2 * u32::try_from(random).unwrap_or(0) / 1000;
        while !self.stopped.load(Ordering::SeqCst) && Instant::now() < end {
            std::thread::sleep(SLICE.min(end.saturating_duration_since(Instant::now())));
        }
    }
}

enum Verdict {
    Done(Result<Answer, StoreError>),
    Repeat(String),
}

fn text_of(body: &[u8]) -> String {
    String::from_utf8_lossy(body).into_owned()
}

/// The text of the first element of this name, without entities.
fn element(xml: &str, name: &str) -> Option<String> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    let entities = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")];
    Some(entities.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to)))
}

/// How long a signature is good. Each attempt has its own.
const VALID: Duration = Duration::from_secs(3600);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
const SLICE: Duration = Duration::from_millis(20);
/// So long the last answers are waited for.
const GRACE: Duration = Duration::from_secs(2);

/// More than a range of a download, and more than a page of a list.
const MAX_ANSWER_BYTES: u64 = 64 << 20;

#[cfg(test)]
mod tests;
