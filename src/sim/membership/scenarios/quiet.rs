//! Nothing happens: what does that cost?

use super::super::member::Member;
use super::super::stage::Stage;

/// Shuffles have filled passive views to this share by the time of the measurement.
const PASSIVE_FILL: f64 = 0.9;

pub(super) fn steady<M: Member>(stage: &mut Stage<M>) {
    stage.join();
    let minutes = stage.options.minutes.unwrap_or(1.0);
    let mark = stage.mark();
    stage.pass(minutes * 60.0);
    stage.costs(&mark);
    stage.views();
    if let Some(fill) = stage.passive_fill() {
        let seen = format!("{:.1} % of what they could hold", fill.mean() * 100.0);
        stage.promise("shuffles fill the passive views", fill.mean() >= PASSIVE_FILL, seen);
    }
    stage.broadcasts(true);
    stage.nobody_accused("nobody is accused");
}
