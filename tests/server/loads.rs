//! What the stand-in saw of a mirror's loads: none is left open, and no label ever had two bodies.

use std::collections::HashMap;

use serde_json::Value;

use crate::harness::{Control, Failure, Outcome, PATIENCE, Pair, wait_until};

/// Checks the loads of a pair that has come into step.
///
/// # Errors
///
/// A load that stays open, or a label that two different bodies were sent under.
pub(crate) fn assert_loads_are_sound(pair: &Pair) -> Outcome {
    let Some(control) = pair.starrocks.control() else { return Ok(()) };
    wait_until("no load is open at the target", PATIENCE, || Ok(open_loads(control)? == 0))?;
    each_label_has_one_body(&control.log()?)
}

fn open_loads(control: Control) -> Outcome<usize> {
    let labels = control.labels()?;
    let all = labels.pointer("/transactions").and_then(Value::as_array);
    let all = all.ok_or_else(|| Failure::new("the stand-in gives no list of transactions"))?;
    Ok(all.iter().filter(|transaction| transaction["state"] == "PREPARE").count())
}

fn each_label_has_one_body(log: &Value) -> Outcome {
    let requests = log.pointer("/requests").and_then(Value::as_array);
    let requests = requests.ok_or_else(|| Failure::new("the stand-in gives no log"))?;
    let mut bodies: HashMap<&str, &str> = HashMap::new();
    for request in requests {
        // A label that a load may still arrive under is used up by another one, which changes nothing.
        if request["path"].as_str().is_some_and(|path| path.contains("/dbmazz_owner/")) {
            continue;
        }
        // Only a load whose body was read whole has a digest.
        let (Some(label), Some(digest)) = (request["label"].as_str(), request["digest"].as_str()) else {
            continue;
        };
        if *bodies.entry(label).or_insert(digest) != digest {
            return Err(Failure::new(format!("two different loads were sent under the label \"{label}\"")));
        }
    }
    if bodies.is_empty() {
        return Err(Failure::new("the stand-in has logged no load"));
    }
    Ok(())
}
