//! Calls of a driver: how many, how they ended, and how long they took.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use tonic::Code;

use super::Page;

/// Upper bounds of the histogram, in seconds: from a look at a record to the kubelet's patience.
const SECONDS: [f64; 9] = [0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 5.0, 30.0, 120.0];

/// What a call is named that this driver does not have: its caller may have written anything.
const OTHER: &str = "other";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    driver: &'static str,
    call: String,
    code: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Called {
    driver: &'static str,
    call: String,
}

type Seconds = Family<Called, Histogram, fn() -> Histogram>;

/// Counts the calls of one driver. Cheap to clone.
#[derive(Clone, Debug)]
pub struct CallNumbers {
    driver: &'static str,
    ended: Family<Ended, Counter>,
    seconds: Seconds,
}

impl CallNumbers {
    /// Of the driver of that name; nobody is shown them yet.
    pub fn new(driver: &'static str) -> Self {
        Self {
            driver,
            ended: Family::default(),
            seconds: Seconds::new_with_constructor(|| Histogram::new(SECONDS)),
        }
    }

    /// Shows them on a page.
    pub fn show(&self, page: &mut Page) {
        let registry = page.registry();
        registry.register(
            "csi_calls",
            "Calls of the interface that ended, by their codes",
            self.ended.clone(),
        );
        registry.register(
            "csi_call_seconds",
            "Time until a call was answered",
            self.seconds.clone(),
        );
    }

    /// Counts a call: `Service/Method`, as the interface names it.
    pub(crate) fn count(&self, call: &str, code: Code, took: Duration) {
        let call = match code {
            Code::Unimplemented => OTHER,
            _ => call,
        };
        let (driver, call) = (self.driver, call.to_owned());
        let called = Called {
            driver,
            call: call.clone(),
        };
        self.seconds
            .get_or_create(&called)
            .observe(took.as_secs_f64());
        let code = format!("{code:?}");
        let ended = Ended { driver, call, code };
        self.ended.get_or_create(&ended).inc();
    }
}
