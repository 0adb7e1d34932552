//! One event, one line: time (UTC), level, thread, target, spans, message, fields.

use std::fmt::{self, Write};

use time::OffsetDateTime;
use tracing::{Event, Subscriber};
use tracing_log::NormalizeEvent;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

use crate::ambient::Clock;
use crate::types::WallTime;

/// The format of the log.
pub(super) struct Line {
    /// Where the time comes from.
    pub(super) clock: Clock,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        // What came through the crate `log` carries its origin in fields.
        let normalized = event.normalized_metadata();
        let metadata = normalized.as_ref().unwrap_or_else(|| event.metadata());
        let fatal = metadata.target() == super::FATAL;
        let level = if fatal { "FATAL" } else { metadata.level().as_str() };
        // The target of a fatal line says only that it is fatal.
        let target = if fatal { metadata.module_path().unwrap_or(super::FATAL) } else { metadata.target() };
        let current = std::thread::current();
        // A thread's name is one word of a line, as it is one part of a file's name.
        let thread = current.name().unwrap_or("-").replace(char::is_whitespace, "_");
        let mut text = String::new();
        if let Some(scope) = context.event_scope() {
            for span in scope.from_root() {
                write!(text, "{}", span.name())?;
                match span.extensions().get::<FormattedFields<N>>() {
                    Some(fields) if !fields.is_empty() => write!(text, "{{{fields}}}: ")?,
                    _ => text.push_str(": "),
                }
            }
        }
        context.format_fields(Writer::new(&mut text), event)?;
        write!(writer, "{} {level:5} {} {target}: ", utc((self.clock)().wall), thread)?;
        // What a client sent may be part of the text: it must not look like a line of ours.
        for char in text.chars() {
            if char.is_control() { write!(writer, "{}", char.escape_default())? } else { writer.write_char(char)? }
        }
        writeln!(writer)
    }
}

/// `2026-01-31T23:59:59.999Z`.
pub(super) fn utc(wall: WallTime) -> String {
    let millis = wall.0 % 1000;
    let at = date_time(wall);
    format!("{}T{:02}:{:02}:{:02}.{millis:03}Z", date(wall), at.hour(), at.minute(), at.second())
}

/// `2026-01-31`.
pub(super) fn date(wall: WallTime) -> String {
    let at = date_time(wall);
    format!("{:04}-{:02}-{:02}", at.year(), u8::from(at.month()), at.day())
}

fn date_time(wall: WallTime) -> OffsetDateTime {
    let seconds = i64::try_from(wall.0 / 1000).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}
