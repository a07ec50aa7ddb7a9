//! The client against small servers that do what servers do, and what they should not.

use std::io::{BufRead as _, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use super::*;

/// A stream that a test's server talks over.
trait Talk: Read + Write + Send {}
impl<T: Read + Write + Send> Talk for T {}

/// What a server read of a request: its head, line by line, and its body by `Content-Length` or chunks.
struct Asked {
    head: String,
    body: Vec<u8>,
}

/// Reads one request; none at the end of the connection.
fn ask(stream: &mut BufReader<Box<dyn Talk>>) -> Option<Asked> {
    let head = head(stream)?;
    let mut body = Vec::new();
    let lower = head.to_ascii_lowercase();
    if let Some((_, length)) = lower.split_once("content-length: ") {
        body.resize(length.lines().next().unwrap().parse().unwrap(), 0);
        stream.read_exact(&mut body).ok()?;
    } else if lower.contains("transfer-encoding: chunked") {
        loop {
            let mut size = String::new();
            stream.read_line(&mut size).ok()?;
            let mut chunk = vec![0; usize::from_str_radix(size.trim(), 16).ok()? + 2];
            stream.read_exact(&mut chunk).ok()?;
            if chunk.len() == 2 {
                break;
            }
            body.extend_from_slice(&chunk[..chunk.len() - 2]);
        }
    }
    Some(Asked { head, body })
}

fn head(stream: &mut BufReader<Box<dyn Talk>>) -> Option<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    Some(head)
}

type Stream = BufReader<Box<dyn Talk>>;

/// Serves every connection with `serve`, which is told how many came before it. Gives the address.
fn server(serve: impl Fn(usize, &mut Stream) + Send + Sync + 'static) -> Url {
    tls_server(None, serve)
}

fn tls_server(tls: Option<Arc<rustls::ServerConfig>>, serve: impl Fn(usize, &mut Stream) + Send + Sync + 'static) -> Url {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let scheme = if tls.is_some() { "https" } else { "http" };
    let url = Url::parse(&format!("{scheme}://{}/", listener.local_addr().unwrap())).unwrap();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for (at, stream) in listener.incoming().enumerate() {
            let (serve, tls) = (serve.clone(), tls.clone());
            thread::spawn(move || serve(at, &mut BufReader::new(dress(stream.unwrap(), tls))));
        }
    });
    url
}

fn dress(stream: TcpStream, tls: Option<Arc<rustls::ServerConfig>>) -> Box<dyn Talk> {
    match tls {
        None => Box::new(stream),
        Some(config) => Box::new(rustls::StreamOwned::new(rustls::ServerConnection::new(config).unwrap(), stream)),
    }
}

/// Answers every request with the same bytes.
fn always(answer: &'static str) -> Url {
    server(move |_, stream| {
        while ask(stream).is_some() {
            stream.get_mut().write_all(answer.as_bytes()).unwrap();
        }
    })
}

/// Answers every request once, and closes the connection.
fn once(answer: &'static str) -> Url {
    server(move |_, stream| {
        ask(stream);
        stream.get_mut().write_all(answer.as_bytes()).unwrap();
    })
}

fn client(settings: Settings) -> Client {
    Client::new(settings, &Cancel::default())
}

fn short() -> Settings {
    Settings { idle_timeout: Duration::from_millis(300), ..Settings::default() }
}

fn get(url: &Url) -> Result<Vec<u8>> {
    client(short()).send(Request::get(url))?.bytes(1 << 20)
}

/// What the whole of a request fails with.
fn failure(url: &Url, settings: Settings) -> (ErrorKind, String) {
    let error = client(settings).send(Request::get(url)).and_then(|answer| answer.bytes(1 << 20)).unwrap_err();
    (error.kind(), error.to_string().replace(&url.authority(), "HOST"))
}

#[test]
fn statuses_are_answers_and_redirects_are_not_followed() {
    let url = always("HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nLink: a\r\nlink: b\r\nContent-Length: 2\r\n\r\nhi");
    let answer = client(short()).send(Request::get(&url)).unwrap();
    assert_eq!((answer.status, answer.header("location"), answer.content_length), (302, Some("/elsewhere"), Some(2)));
    assert_eq!(answer.headers("Link").collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(answer.bytes(10).unwrap(), b"hi");
    let url = always("HTTP/1.1 500 Oh\r\nContent-Length: 3\r\n\r\nsad");
    let answer = client(short()).send(Request::get(&url)).unwrap();
    assert_eq!((answer.status, answer.bytes(2).unwrap_err().kind()), (500, ErrorKind::Limit));
}

#[test]
fn requests_look_as_they_should() {
    let url = server(|_, stream| {
        while let Some(asked) = ask(stream) {
            let said = format!("{}|{}", asked.head, String::from_utf8(asked.body).unwrap());
            write!(stream.get_mut(), "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{said}", said.len()).unwrap();
        }
    });
    let client = client(short());
    let show = |request: Request<'_>| {
        let said = String::from_utf8(client.send(request).unwrap().bytes(1 << 20).unwrap()).unwrap();
        said.replace(&url.authority(), "HOST").replace("\r\n", "\n")
    };
    let agent = concat!("user-agent: longshore/", env!("CARGO_PKG_VERSION"), "\naccept: */*\n");
    let lines = |text: String| {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines[1..].sort();
        lines.join("\n")
    };
    let same = |request, expected: &str| assert_eq!(lines(show(request)), lines(expected.to_owned()));
    let path = url.with_path("/v2/?a=%20b").unwrap();
    same(Request::get(&path).header("X-One", "1"), &format!("GET /v2/?a=%20b HTTP/1.1\nhost: HOST\n{agent}x-one: 1\n\n|"));
    same(Request::new(Method::Delete, &url), &format!("DELETE / HTTP/1.1\nhost: HOST\n{agent}\n|"));
    same(Request::new(Method::Post, &url), &format!("POST / HTTP/1.1\nhost: HOST\n{agent}content-length: 0\n\n|"));
    let put = Request::new(Method::Put, &url).header("Accept", "x/y").body(Body::Bytes(b"body"));
    same(put, &format!("PUT / HTTP/1.1\nhost: HOST\n{}content-length: 4\n\n|body", agent.replace("*/*", "x/y")));
    let body = Body::Stream { reader: &mut &b"more than that"[..], size: Some(4) };
    same(Request::new(Method::Patch, &url).body(body), &format!("PATCH / HTTP/1.1\nhost: HOST\n{agent}content-length: 4\n\n|more"));
    let body = Body::Stream { reader: &mut &b"in chunks"[..], size: None };
    same(
        Request::new(Method::Post, &url).body(body),
        &format!("POST / HTTP/1.1\nhost: HOST\n{agent}transfer-encoding: chunked\n\n|in chunks"),
    );
}

#[test]
fn headers_cannot_be_smuggled() {
    let url = always("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let error = client(short()).send(Request::get(&url).header("X", "a\r\nY: b")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[test]
fn connections_are_kept_when_bodies_are_read_to_their_end() {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    let url = server(move |_, stream| {
        counter.fetch_add(1, Ordering::SeqCst);
        while let Some(asked) = ask(stream) {
            let body = if asked.head.starts_with("HEAD") { "" } else { "ab" };
            write!(stream.get_mut(), "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{body}").unwrap();
        }
    });
    let client = client(short());
    for _ in 0..3 {
        assert_eq!(client.send(Request::get(&url)).unwrap().bytes(10).unwrap(), b"ab");
        assert_eq!(client.send(Request::new(Method::Head, &url)).unwrap().content_length, Some(2));
        client.send(Request::new(Method::Put, &url).body(Body::Bytes(&[0; 1000]))).unwrap().bytes(10).unwrap();
    }
    assert_eq!(count.load(Ordering::SeqCst), 1);
    // One that is not read to its end is closed.
    drop(client.send(Request::get(&url)).unwrap());
    client.send(Request::get(&url)).unwrap().bytes(10).unwrap();
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

#[test]
fn a_kept_connection_that_was_closed_meanwhile_is_replaced() {
    let url = server(|at, stream| {
        ask(stream);
        write!(stream.get_mut(), "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{at}").unwrap();
        if at == 1 {
            // Closed when the next request is there.
            ask(stream);
        }
    });
    let client = client(short());
    let say = || client.send(Request::get(&url)).unwrap().bytes(10).unwrap();
    assert_eq!(say(), b"0");
    thread::sleep(Duration::from_millis(50));
    assert_eq!(say(), b"1");
    assert_eq!(say(), b"2");
}

#[test]
fn bodies_that_end_too_early_are_errors() {
    let cut = "the connection was closed in the middle of the answer";
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ] {
        let url = once(answer);
        let error = get(&url).unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Unavailable, cut), "{answer}");
    }
    let url = once("HTTP/1.0 200 OK\r\n\r\nto the end");
    assert_eq!(get(&url).unwrap(), b"to the end");
    let url = once("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nall\r\n0\r\nTrailer: x\r\n\r\n");
    assert_eq!(get(&url).unwrap(), b"all");
}

#[test]
fn answers_that_are_none() {
    for (answer, kind, says) in [
        ("", ErrorKind::Unavailable, "HOST: the connection was closed before there was an answer"),
        ("HTTP/1.1 200 OK\r\nContent-", ErrorKind::Unavailable, "HOST: the connection was closed before there was an answer"),
        ("SSH-2.0-OpenSSH\r\n", ErrorKind::Invalid, "HOST: the answer is not HTTP: "),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", ErrorKind::Invalid, "HOST: the answer is not HTTP: "),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", ErrorKind::Invalid, "the answer is not HTTP: "),
    ] {
        let (found, text) = failure(&once(answer), short());
        assert!(found == kind && text.starts_with(says), "{answer:?}: {found:?} {text}");
    }
}

#[test]
fn headers_without_end_are_bounded() {
    for line in ["X: y\r\n", "x"] {
        let url = server(move |_, stream| {
            ask(stream);
            let mut ok = stream.get_mut().write_all(b"HTTP/1.1 102 Wait\r\n\r\nHTTP/1.1 200 OK\r\n").is_ok();
            while ok {
                ok = stream.get_mut().write_all(line.repeat(1000).as_bytes()).is_ok();
            }
        });
        let (kind, text) = failure(&url, short());
        assert!(matches!(kind, ErrorKind::Limit | ErrorKind::Invalid), "{line}: {text}");
    }
    let url = server(|_, stream| {
        ask(stream);
        while stream.get_mut().write_all(&b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(1000)).is_ok() {}
    });
    assert_eq!(failure(&url, short()).0, ErrorKind::Limit);
}

#[test]
fn what_follows_a_body_is_bounded() {
    for line in ["X: y\r\n", "Trailer: of some length, so that there are few\r\n"] {
        let url = server(move |_, stream| {
            ask(stream);
            let mut ok = stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nall\r\n0\r\n").is_ok();
            while ok {
                ok = stream.get_mut().write_all(line.repeat(1000).as_bytes()).is_ok();
            }
        });
        let (kind, text) = failure(&url, short());
        assert!(matches!(kind, ErrorKind::Limit | ErrorKind::Invalid), "{line}: {text}");
    }
    // A body in chunks of a byte has more beside it than in it.
    let url = server(|_, stream| {
        ask(stream);
        let chunks = "1;of=one byte alone\r\nx\r\n".repeat(100_000);
        let answer = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n");
        stream.get_mut().write_all(answer.as_bytes()).unwrap();
    });
    assert_eq!(get(&url).unwrap(), [b'x'; 100_000]);
}

#[test]
fn nobody_waits_longer_than_the_idle_time() {
    let silent = server(|_, stream| {
        ask(stream);
        thread::sleep(Duration::from_secs(5));
    });
    let stops = server(|_, stream| {
        ask(stream);
        stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").unwrap();
        thread::sleep(Duration::from_secs(5));
    });
    let handshake = Url::parse(&silent.to_string().replace("http:", "https:")).unwrap();
    for url in [silent, stops, handshake] {
        let start = Instant::now();
        let (kind, text) = failure(&url, short());
        assert_eq!(kind, ErrorKind::Unavailable, "{text}");
        assert!(text.ends_with("no answer for 300 milliseconds"), "{text}");
        assert!((200..2000).contains(&start.elapsed().as_millis()));
    }
    // Neither does it end what is only slow.
    let drip = server(|_, stream| {
        ask(stream);
        for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow".chunks(5) {
            thread::sleep(Duration::from_millis(100));
            stream.get_mut().write_all(byte).unwrap();
        }
    });
    assert_eq!(get(&drip).unwrap(), b"slow");
}

#[test]
fn uploads_that_nobody_takes_end_too() {
    let url = server(|_, _| thread::sleep(Duration::from_secs(5)));
    let body = Body::Stream { reader: &mut io::repeat(0), size: None };
    let error = client(short()).send(Request::new(Method::Post, &url).body(body)).unwrap_err();
    assert!(error.to_string().ends_with("nothing of the request is taken for 300 milliseconds"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[test]
fn cancelling_ends_every_wait() {
    let url = server(|_, stream| {
        ask(stream);
        thread::sleep(Duration::from_secs(5));
    });
    let cancel = Cancel::default();
    let client = Client::new(Settings::default(), &cancel);
    let start = Instant::now();
    let stop = cancel.clone();
    thread::spawn(move || {
        thread::sleep(Duration::from_millis(100));
        stop.cancel();
    });
    let error = client.send(Request::get(&url)).unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Cancelled, "cancelled"));
    assert!(start.elapsed() < Duration::from_secs(1));
    // One request alone, on a connection that was used before.
    let url = server(|_, stream| {
        ask(stream);
        stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
        ask(stream);
        thread::sleep(Duration::from_secs(5));
    });
    let (client, cancel) = (super::tests::client(Settings::default()), Cancel::default());
    assert_eq!(client.send(Request::get(&url)).unwrap().status, 200);
    let (start, stop) = (Instant::now(), cancel.clone());
    thread::spawn(move || {
        thread::sleep(Duration::from_millis(100));
        stop.cancel();
    });
    let error = client.send(Request::get(&url).cancel(&cancel)).unwrap_err();
    assert!(error.kind() == ErrorKind::Cancelled && start.elapsed() < Duration::from_secs(1));
}

#[test]
fn answers_go_to_other_threads() {
    fn sent<T: Send + 'static>() {}
    sent::<Response>();
    fn shared<T: Send + Sync + Clone>() {}
    shared::<Client>();
}

#[test]
fn answers_that_come_before_the_request_is_sent() {
    // Refuses after the headers, reads nothing more, and either waits or closes.
    for waits in [true, false] {
        for size in [None, Some(1 << 40)] {
            let url = server(move |_, stream| {
                head(stream);
                stream.get_mut().write_all(b"HTTP/1.1 401 No\r\nContent-Length: 4\r\n\r\nwhy?").unwrap();
                if waits {
                    thread::sleep(Duration::from_secs(10));
                }
            });
            let start = Instant::now();
            let mut zeros = io::repeat(0).take(1 << 40);
            let body = Body::Stream { reader: &mut zeros, size };
            let answer = client(Settings::default()).send(Request::new(Method::Put, &url).body(body));
            if let Ok(answer) = answer {
                assert_eq!((answer.status, answer.bytes(10).unwrap()), (401, b"why?".to_vec()));
            } else {
                // A connection that is closed with bytes unread is reset: then the answer may be lost.
                assert!(!waits && answer.unwrap_err().kind() == ErrorKind::Unavailable);
            }
            assert!(start.elapsed() < Duration::from_secs(8) && zeros.limit() > 1 << 39);
        }
    }
    // Interim answers are none.
    let url = server(|_, stream| {
        let head = head(stream).unwrap();
        assert!(head.contains("expect"));
        thread::sleep(Duration::from_millis(1200));
        for _ in 0..2 {
            stream.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
            thread::sleep(Duration::from_millis(50));
        }
        stream.read_exact(&mut vec![0; 3 << 20]).unwrap();
        stream.get_mut().write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n").unwrap();
    });
    let body = vec![0; 3 << 20];
    let request = Request::new(Method::Put, &url).header("Expect", "100-continue").body(Body::Bytes(&body));
    assert_eq!(client(Settings::default()).send(request).unwrap().status, 201);
}

#[test]
fn a_body_that_fails_breaks_the_request_off() {
    struct Fails(usize);
    impl Read for Fails {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0 += 1;
            if self.0 > 3 { Err(Error::mismatch("a wrong digest").into()) } else { Ok(buffer.len()) }
        }
    }
    let whole = Arc::new(AtomicUsize::new(0));
    let counter = whole.clone();
    let url = server(move |_, stream| {
        if ask(stream).is_some() {
            counter.fetch_add(1, Ordering::SeqCst);
        }
    });
    for size in [None, Some(10 << 20)] {
        let body = Body::Stream { reader: &mut Fails(0), size };
        let error = client(short()).send(Request::new(Method::Post, &url).body(body)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Mismatch);
        assert!(error.to_string().ends_with("a wrong digest"), "{error}");
    }
    let body = Body::Stream { reader: &mut &b"short"[..], size: Some(10) };
    let error = client(short()).send(Request::new(Method::Post, &url).body(body)).unwrap_err();
    assert!(error.to_string().ends_with("what is to be sent ends 5 bytes too early"), "{error}");
    thread::sleep(Duration::from_millis(100));
    assert_eq!(whole.load(Ordering::SeqCst), 0);
}

#[test]
fn hosts_that_are_not_there() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = Url::parse(&format!("http://localhost:{port}/")).unwrap();
    assert_eq!(failure(&url, short()), (ErrorKind::Unavailable, "HOST: connection refused".to_owned()));
    let url = Url::parse("http://nowhere.invalid/").unwrap();
    let (kind, text) = failure(&url, Settings { connect_timeout: Duration::from_secs(5), ..short() });
    assert_eq!(kind, ErrorKind::Unavailable);
    assert!(text.starts_with("HOST: the name cannot be resolved"), "{text}");
}

#[test]
fn unix_sockets() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("engine.sock");
    let url = Url::parse("http://engine/_ping").unwrap();
    let error = Client::unix(path.clone(), short(), &Cancel::default()).send(Request::get(&url)).unwrap_err();
    assert!(error.to_string().ends_with("there is no such socket") && error.kind() == ErrorKind::Unavailable, "{error}");
    let listener = UnixListener::bind(&path).unwrap();
    thread::spawn(move || {
        let mut stream: Stream = BufReader::new(Box::new(listener.accept().unwrap().0));
        while let Some(asked) = ask(&mut stream) {
            assert!(asked.head.starts_with("GET /_ping HTTP/1.1\r\n") && asked.head.contains("host: engine\r\n"), "{}", asked.head);
            stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK").unwrap();
        }
    });
    let client = Client::unix(path.clone(), short(), &Cancel::default());
    for _ in 0..2 {
        assert_eq!(client.send(Request::get(&url)).unwrap().bytes(10).unwrap(), b"OK");
    }
}

/// A certificate and its key, in PEM.
type Identity = (Vec<u8>, Vec<u8>);

/// A server's settings with a certificate for `names`, and the authority's certificate.
fn certified(names: &[&str], clients: bool) -> (Arc<rustls::ServerConfig>, Vec<u8>, Identity) {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = authority.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let signed = |names: &[&str]| {
        let key = rcgen::KeyPair::generate().unwrap();
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        (rcgen::CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap(), key)
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let builder = if clients {
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        builder.with_client_cert_verifier(verifier.build().unwrap())
    } else {
        builder.with_no_client_auth()
    };
    let (certificate, key) = signed(names);
    let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = builder.with_single_cert(vec![certificate.der().clone()], key).unwrap();
    let (own, own_key) = signed(&["client"]);
    (Arc::new(config), ca.pem().into_bytes(), (own.pem().into_bytes(), own_key.serialize_pem().into_bytes()))
}

fn trusting(ca: &[u8]) -> Settings {
    Settings { tls: TlsSettings { ca: Some(ca.to_vec()), ..TlsSettings::default() }, ..short() }
}

/// Says how long the body was, over and over.
fn measure(_: usize, stream: &mut Stream) {
    while let Some(asked) = ask(stream) {
        let said = asked.body.len().to_string();
        write!(stream.get_mut(), "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{said}", said.len()).unwrap();
        stream.get_mut().flush().unwrap();
    }
}

#[test]
fn tls_with_an_authority() {
    let (config, ca, _) = certified(&["127.0.0.1"], false);
    let url = tls_server(Some(config), measure);
    let client = client(trusting(&ca));
    let body = vec![7; 3 << 20];
    for _ in 0..2 {
        let request = Request::new(Method::Put, &url).body(Body::Bytes(&body));
        assert_eq!(client.send(request).unwrap().bytes(100).unwrap(), (3 << 20).to_string().as_bytes());
    }
    assert_eq!(client.0.kept().len(), 1);
    let insecure = Settings { tls: TlsSettings { insecure: true, ..TlsSettings::default() }, ..short() };
    assert_eq!(super::tests::client(insecure).send(Request::get(&url)).unwrap().status, 200);
    let (kind, text) = failure(&url, short());
    assert_eq!(kind, ErrorKind::Denied);
    assert_eq!(text, "HOST: TLS: the certificate of 127.0.0.1 is not valid: nobody who is trusted has signed it");
}

#[test]
fn tls_that_fails() {
    let (config, ca, _) = certified(&["other.example"], false);
    let url = tls_server(Some(config), measure);
    let (kind, text) = failure(&url, trusting(&ca));
    assert!(kind == ErrorKind::Denied && text.ends_with("it is made out to another name"), "{text}");
    // HTTP in clear where TLS is expected.
    let plain = server(|_, stream| {
        let _ = stream.get_mut().write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n");
        thread::sleep(Duration::from_millis(100));
    });
    let url = Url::parse(&plain.to_string().replace("http:", "https:")).unwrap();
    let error = client(short()).send(Request::get(&url)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.hint_text().unwrap().contains("--insecure"), "{error}");
    for (tls, says) in [
        (
            TlsSettings { ca: Some(b"junk".to_vec()), ..TlsSettings::default() },
            "the certificates of the authority: it has no certificate in PEM",
        ),
        (TlsSettings { identity: Some((ca.clone(), b"junk".to_vec())), ..TlsSettings::default() }, "the client's key cannot be used: "),
    ] {
        let (kind, text) = failure(&url, Settings { tls, ..short() });
        assert!(kind == ErrorKind::Invalid && text.contains(says), "{text}");
    }
}

#[test]
fn tls_with_a_certificate_of_ours() {
    let (config, ca, identity) = certified(&["127.0.0.1"], true);
    let url = tls_server(Some(config), measure);
    let mut settings = trusting(&ca);
    let (kind, text) = failure(&url, settings.clone());
    assert_eq!((kind, text.as_str()), (ErrorKind::Denied, "HOST: TLS: 127.0.0.1 wants to see a certificate of ours"));
    settings.tls.identity = Some(identity.clone());
    assert_eq!(client(settings.clone()).send(Request::get(&url)).unwrap().status, 200);
    // What the server thinks of a certificate of version 1 is its business; that the key is another's is ours.
    settings.tls.identity = Some((VERSION_1.into(), VERSION_1_KEY.into()));
    assert!(settings.tls.config().is_ok());
    settings.tls.identity = Some((identity.0, VERSION_1_KEY.into()));
    let error = settings.tls.config().unwrap_err();
    assert!(error.to_string().starts_with("the client's certificate and key cannot be used: "), "{error}");
}

/// As `openssl x509 -req` writes it (OpenSSL 3.0.19), for a hundred years and for nothing but this test.
const VERSION_1: &str = "\
-----BEGIN CERTIFICATE-----
MIIBHjCBxQIUQeasTqVWTlY4fYpq3v8ABW2RQDUwCgYIKoZIzj0EAwIwETEPMA0G
A1UEAwwGY2xpZW50MCAXDTI2MTEyMTIxMDIzM1oYDzIxMjYxMDI4MjEwMjMzWjAR
MQ8wDQYDVQQDDAZjbGllbnQwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAATKYY8c
sQmj+XZoZun7jdfcv+7dCOkNchirJNgVxE+7PZXY6rBTKKXfJL+yP/tVV1YQ7X5i
HxWzIGKi9NQL1oztMAoGCCqGSM49BAMCA0gAMEUCIQDpNrYfgydiA4vDr2ahahEt
KgcIEUkCY+yOYeTyr8Ce8AIgJFiSLmom7E37aZYA69hzW4I9MKe48Ig5YtwESc7P
Cw0=
-----END CERTIFICATE-----
";
const VERSION_1_KEY: &str = "\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgMjoPRENe0IAaME7U
OMXEmwMjaLAkMBrF+4wT6w/r1OChRANCAATKYY8csQmj+XZoZun7jdfcv+7dCOkN
chirJNgVxE+7PZXY6rBTKKXfJL+yP/tVV1YQ7X5iHxWzIGKi9NQL1ozt
-----END PRIVATE KEY-----
";

#[test]
fn a_certificate_is_known_by_itself_whoever_has_signed_it() {
    let (authority_key, key, other_key) = (rcgen::KeyPair::generate(), rcgen::KeyPair::generate(), rcgen::KeyPair::generate());
    let (key, other_key) = (key.unwrap(), other_key.unwrap());
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.distinguished_name.push(rcgen::DnType::CommonName, "an authority");
    let issuer = rcgen::Issuer::new(authority, authority_key.unwrap());
    let params = || rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let (own, other) = (params().signed_by(&key, &issuer).unwrap(), params().signed_by(&other_key, &issuer).unwrap());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = builder.with_no_client_auth().with_single_cert(vec![own.der().clone()], key).unwrap();
    let url = tls_server(Some(Arc::new(config)), measure);
    assert_eq!(client(trusting(own.pem().as_bytes())).send(Request::get(&url)).unwrap().status, 200);
    let (kind, text) = failure(&url, trusting(other.pem().as_bytes()));
    assert!(kind == ErrorKind::Denied && text.ends_with("nobody who is trusted has signed it"), "{text}");
}

#[test]
fn tls_that_is_cut_off() {
    let (config, ca, _) = certified(&["127.0.0.1"], false);
    let url = tls_server(Some(config), |_, stream| {
        ask(stream);
        // No closing alert: a body that ends with the connection cannot be believed.
        stream.get_mut().write_all(b"HTTP/1.0 200 OK\r\n\r\nhalf").unwrap();
        stream.get_mut().flush().unwrap();
    });
    let (kind, text) = failure(&url, trusting(&ca));
    assert_eq!((kind, text.as_str()), (ErrorKind::Unavailable, "the connection was closed"));
}

#[test]
fn answers_over_tls_that_come_early() {
    let (config, ca, _) = certified(&["127.0.0.1"], false);
    let url = tls_server(Some(config), |_, stream| {
        head(stream);
        stream.get_mut().write_all(b"HTTP/1.1 413 Too much\r\nContent-Length: 0\r\n\r\n").unwrap();
        stream.get_mut().flush().unwrap();
        thread::sleep(Duration::from_secs(2));
    });
    let body = Body::Stream { reader: &mut io::repeat(1).take(1 << 40), size: Some(1 << 40) };
    let settings = Settings { idle_timeout: Duration::from_secs(30), ..trusting(&ca) };
    assert_eq!(client(settings).send(Request::new(Method::Put, &url).body(body)).unwrap().status, 413);
}

/// A name that is no local one, which only a proxy can reach.
const FAR: &str = "far.example:5000";

#[test]
fn plain_requests_through_a_proxy() {
    let proxy = server(|_, stream| {
        while let Some(asked) = ask(stream) {
            let said = asked.head.replace("\r\n", "\n");
            write!(stream.get_mut(), "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{said}", said.len()).unwrap();
        }
    });
    let proxies = Proxies { http: Some(format!("http://me:secret@{}", proxy.authority())), ..Proxies::default() };
    let client = client(Settings { proxies, ..short() });
    let url = Url::parse(&format!("http://{FAR}/v2/?x")).unwrap();
    for _ in 0..2 {
        let said = String::from_utf8(client.send(Request::get(&url)).unwrap().bytes(10_000).unwrap()).unwrap();
        let begins = format!("GET http://{FAR}/v2/?x HTTP/1.1\nProxy-Authorization: Basic bWU6c2VjcmV0\n");
        assert!(said.starts_with(&begins) && said.contains(&format!("\nhost: {FAR}\n")), "{said}");
    }
}

/// A proxy that connects to `to`, whatever it is asked for.
fn tunnel(to: String) -> Url {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
    thread::spawn(move || {
        for near in listener.incoming() {
            let mut near = near.unwrap();
            let head = head(&mut BufReader::with_capacity(1, Box::new(near.try_clone().unwrap()))).unwrap();
            if !head.starts_with(&format!("CONNECT {FAR} HTTP/1.1\r\nHost: {FAR}\r\n"))
                || !head.contains("Proxy-Authorization: Basic bWU6c2VjcmV0\r\n")
            {
                near.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n").unwrap();
                continue;
            }
            near.write_all(b"HTTP/1.1 200 Connection established\r\nVia: me\r\n\r\n").unwrap();
            let far = TcpStream::connect(&to).unwrap();
            for (mut from, mut to) in [(near.try_clone().unwrap(), far.try_clone().unwrap()), (far, near)] {
                thread::spawn(move || io::copy(&mut from, &mut to));
            }
        }
    });
    url
}

#[test]
fn tunnels_through_a_proxy() {
    let (config, ca, _) = certified(&["far.example"], false);
    let target = tls_server(Some(config), |_, stream| {
        while let Some(asked) = ask(stream) {
            let secret = asked.head.to_ascii_lowercase().contains("proxy-authorization");
            write!(stream.get_mut(), "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{secret:5}").unwrap();
        }
    });
    let proxy = tunnel(target.authority());
    let url = Url::parse(&format!("https://{FAR}/")).unwrap();
    let through = |user: &str| {
        let proxies = Proxies { https: Some(format!("{user}{}", proxy.authority())), ..Proxies::default() };
        client(Settings { proxies, ..trusting(&ca) })
    };
    let error = through("").send(Request::get(&url)).unwrap_err();
    let says = format!("{FAR}: the proxy {}: it does not connect to {FAR}: 407 Proxy Authentication Required", proxy.authority());
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::Denied, says));
    let client = through("me:secret@");
    for _ in 0..2 {
        assert_eq!(client.send(Request::get(&url)).unwrap().bytes(100).unwrap(), b"false");
    }
}

#[test]
fn a_proxy_that_never_answers() {
    let proxy = server(|_, stream| {
        head(stream);
        thread::sleep(Duration::from_secs(5));
    });
    let proxies = Proxies { https: Some(proxy.authority()), ..Proxies::default() };
    let url = Url::parse(&format!("https://{FAR}/")).unwrap();
    let error = client(Settings { proxies, ..short() }).send(Request::get(&url)).unwrap_err();
    let says = format!("{FAR}: the proxy {}: no answer for 300 milliseconds", proxy.authority());
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::Unavailable, says));
}
