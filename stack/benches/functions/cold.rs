//! From nothing running to the first answer.

use std::time::{Duration, Instant};

use hyper::Method;

use crate::figure::percentile;
use crate::floor::milliseconds;
use crate::lab::Lab;
use crate::{delete, deploy, scale};

/// How long a function rests before the next call: what is made ready for it in the background is.
const REST: Duration = Duration::from_millis(400);

/// A call of a function that is scaled to none, in milliseconds: median.
pub async fn stopped(lab: &Lab, rounds: usize) -> f64 {
    deploy(lab, "cold").await;
    let mut taken = Vec::new();
    for _ in 0..rounds {
        scale(lab, "cold", 0).await;
        tokio::time::sleep(REST).await;
        let began = Instant::now();
        lab.expect(200, Method::POST, "/function/cold", "x").await;
        taken.push(milliseconds(began));
    }
    delete(lab, "cold").await;
    percentile(taken, 50)
}

/// A deployment and the first call after it, in milliseconds: median.
pub async fn deployed(lab: &Lab, rounds: usize) -> f64 {
    let mut taken = Vec::new();
    for _ in 0..rounds {
        let began = Instant::now();
        deploy(lab, "new").await;
        lab.expect(200, Method::POST, "/function/new", "x").await;
        taken.push(milliseconds(began));
        delete(lab, "new").await;
    }
    percentile(taken, 50)
}

/// How many first calls fail of so many, made at the worst moment: as soon as the function is scaled to none.
pub async fn failed(lab: &Lab, calls: usize) -> f64 {
    deploy(lab, "first").await;
    let mut failed = 0;
    for _ in 0..calls {
        scale(lab, "first", 0).await;
        match lab.ask(Method::POST, "/function/first", "x").await {
            Ok(answer) if answer.status == 200 && answer.text == "x" => {}
            other => {
                eprintln!("a first call failed: {:?}", other.map(|answer| (answer.status, answer.text)));
                failed += 1;
            }
        }
    }
    delete(lab, "first").await;
    f64::from(failed)
}
