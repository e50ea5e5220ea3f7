//! Fuzz target: any bytes whatever as the body, or the redirect, of an answer of StarRocks. The recorded exchanges of
//! `tests/golden/` serve as first inputs, without their heads.

#![no_main]

use dbmazz::sink::starrocks::fuzzing::read_answers;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| read_answers(without_head(data)));

fn without_head(data: &[u8]) -> &[u8] {
    let head = data.windows(3).position(|bytes| bytes == b"\n\n{");
    let body = head.and_then(|end| data.get(end + 2..)).unwrap_or(data);
    let end = body.windows(5).position(|bytes| bytes == b"\n=== ");
    end.and_then(|end| body.get(..end)).unwrap_or(body)
}
