//! events: a stream of server-sent events, one each `every` milliseconds, `count` in all.
#![no_std]

use core::time::Duration;

use midge_guest::{FunctionError, Request, Response, clock};

/// More would outlast the heap that their texts are written to.
const COUNT_MAX: u32 = 1_000;
const EVERY_MS_MAX: u64 = 60_000;

#[midge_guest::function(area = 16_384, heap = 49_152)]
fn handle<'a>(request: &Request<'a>) -> Result<Response<'a>, FunctionError> {
    let number = |name| request.parameter_text(name).and_then(|text| text.parse::<u64>().ok());
    let count = number("count").map_or(10, |count| u32::try_from(count).unwrap_or(u32::MAX));
    let every = Duration::from_millis(number("every").unwrap_or(1000).min(EVERY_MS_MAX));

    let mut writer = Response::events().start();
    for event in 1..=count.min(COUNT_MAX) {
        writer.event(format_args!("event {event} of {count}"));
        if event < count {
            clock::sleep(every);
        }
    }
    Ok(writer.finish())
}
