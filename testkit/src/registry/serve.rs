//! One request: what goes wrong with it, what is right, and the log.

use std::sync::Arc;
use std::time::Instant;

use super::fault::{Framing, What};
use super::server::{Conn, Delivery, ENDLESS, End, Request, Response};
use super::{Asked, Listener, Shared, routes};

/// Answers a request, and says what becomes of the connection.
pub(super) fn serve(conn: &mut Conn, shared: &Arc<Shared>, kind: Listener, connection: usize, request: &Request) -> End {
    // The other host is what faults lead to, and does well.
    let faults: Vec<What> = if kind == Listener::Elsewhere {
        Vec::new()
    } else {
        let mut faults = shared.faults.lock().unwrap();
        faults.iter_mut().filter_map(|fault| fault.strikes(&request.method, &request.target).then(|| fault.what.clone())).collect()
    };
    let entry = shared.begin(Asked {
        method: request.method.clone(),
        target: request.target.clone(),
        headers: request.headers.clone(),
        listener: kind,
        connection,
        received: 0,
        status: 0,
        range: None,
        sent: 0,
        struck: !faults.is_empty(),
        began: Instant::now(),
        ended: None,
    });
    let end = exchange(conn, shared, kind, entry, request, &faults);
    conn.end(end);
    shared.note(entry, |asked| asked.ended = Some(Instant::now()));
    end
}

fn exchange(conn: &mut Conn, shared: &Arc<Shared>, kind: Listener, entry: usize, request: &Request, faults: &[What]) -> End {
    let lost = faults.iter().find_map(|what| match what {
        What::LoseUpload { after, kept } => Some((*after, *kept)),
        _ => None,
    });
    let mut body = conn.body(request, lost.map_or(u64::MAX, |(after, _)| after));
    shared.note(entry, |asked| asked.received = body.bytes.len() as u64);
    if let Some((_, kept)) = lost {
        body.bytes.truncate(usize::try_from(kept).unwrap_or(usize::MAX));
        body.complete = false;
        routes::answer(shared, kind, request, body);
        return End::Reset;
    }
    // What happens instead of an answer.
    for what in faults {
        match what {
            What::Close => return End::Close,
            What::Reset => return End::Reset,
            What::Silence => {
                conn.end(End::Silence);
                return End::Close;
            }
            What::Delay(pause) if conn.pause(*pause).is_err() => return End::Close,
            What::EndlessHeader => {
                drop(conn.endless_header(|bytes| shared.note(entry, |asked| asked.sent += bytes)));
                return End::Close;
            }
            What::Raw(bytes) => {
                drop(conn.write(bytes));
                shared.note(entry, |asked| asked.sent = bytes.len() as u64);
                return End::Close;
            }
            _ => {}
        }
    }
    if faults.iter().any(|what| matches!(what, What::ForgetUpload)) {
        routes::forget(shared, request);
    }
    let changed = ask_otherwise(request, faults);
    let complete = body.complete;
    let mut response = match faults.iter().find_map(instead) {
        Some(response) => response,
        None => routes::answer(shared, kind, &changed, body),
    };
    if !complete || faults.iter().any(|what| matches!(what, What::Mute)) {
        return End::Close;
    }
    shared.fill_in(&mut response, request, kind, faults);
    let delivery = distort(&mut response, faults);
    shared.note(entry, |asked| {
        asked.status = response.status;
        asked.range = (response.status == 206).then_some((response.range.start as u64, response.range.end as u64));
    });
    let sent = conn.send(&response, &delivery, request.method == "HEAD", |bytes| shared.note(entry, |asked| asked.sent += bytes));
    let last = request.header("connection").is_some_and(|how| how.eq_ignore_ascii_case("close"));
    match delivery.end {
        _ if sent.is_err() => End::Reset,
        End::Next if last => End::Close,
        end => end,
    }
}

/// The request that is answered: with another range, or none, or not to mount.
fn ask_otherwise(request: &Request, faults: &[What]) -> Request {
    let mut request = request.clone();
    for what in faults {
        match what {
            What::IgnoreRange => request.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("range")),
            What::RefuseMount => request.query.retain(|(name, _)| name != "mount" && name != "from"),
            What::WrongRange(by) => {
                for (name, value) in &mut request.headers {
                    let range = value.strip_prefix("bytes=").filter(|_| name.eq_ignore_ascii_case("range"));
                    if let Some(from) = range.and_then(|range| range.split('-').next()?.parse::<i64>().ok()) {
                        *value = format!("bytes={}-", i64::max(0, from + by));
                    }
                }
            }
            _ => {}
        }
    }
    request
}

/// An answer that takes the place of the right one.
fn instead(what: &What) -> Option<Response> {
    let What::Answer { status, headers, body } = what else { return None };
    let mut response = Response { range: 0..body.len(), body: Arc::new(body.clone()), ..Response::new(*status) };
    for (name, value) in headers {
        response.set(name, value.clone());
    }
    Some(response)
}

/// Changes headers and bytes of the answer, and says how it is sent.
fn distort(response: &mut Response, faults: &[What]) -> Delivery {
    let len = response.range.len() as u64;
    let mut how = Delivery { right: len, length: Some(len), unframed: false, noise: 0, drip: None, end: End::Next };
    for what in faults {
        match what {
            What::Cut(bytes) => (how.right, how.end) = (*bytes, End::Close),
            What::Drip { bytes, every } => how.drip = Some((*bytes, *every)),
            What::Endless(framing) => {
                (how.right, how.length, how.unframed) = (0, None, *framing == Framing::Close);
                (how.noise, how.end) = (ENDLESS, End::Close);
            }
            What::Length(by) => (how.length, how.end) = (Some(len.saturating_add_signed(*by)), End::Close),
            What::Longer(bytes) => (how.length, how.noise) = (Some(len + bytes), *bytes),
            What::Noise => (how.right, how.noise) = (0, len),
            What::ResetAfter(bytes) => (how.right, how.end) = (*bytes, End::Reset),
            What::SilenceAfter(bytes) => (how.right, how.end) = (*bytes, End::Silence),
            _ => {}
        }
    }
    how
}
