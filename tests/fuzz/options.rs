//! Fuzz target: any JSON whatever as the options of a mirror. What is refused has a reason and, printed as the words of
//! an error, an end.

#![no_main]

use dbmazz::options::Options;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(given) = serde_json::from_slice(data) else { return };
    match Options::default().merged(&given) {
        Ok(options) => {
            assert_eq!(options.clone().merged(&given).as_ref(), Ok(&options), "a second time it differs")
        }
        Err(problem) => {
            assert!(!problem.to_string().is_empty(), "{problem:?}");
            let _ = problem.hint();
        }
    }
});
