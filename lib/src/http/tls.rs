//! TLS: whom we trust, how we show who we are, and what is said when it fails.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WantsClientCert, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, ConfigBuilder, DigitallySignedStruct, RootCertStore,
    SignatureScheme, WantsVerifier,
};

use crate::context::Cancel;
use crate::error::{Error, ErrorKind, Result};

use super::socket::{Early, Socket};
use super::url::Url;

/// Whom to trust, and who we are.
#[derive(Clone, Default)]
pub struct TlsSettings {
    /// Certificates (PEM) of authorities that are trusted besides those of the system.
    pub ca: Option<Vec<u8>>,
    /// Trust nobody but [`ca`](Self::ca): engines are set up so.
    pub only_ca: bool,
    /// Our certificate and its chain, and the key (PEM).
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
    /// Believe every certificate.
    pub insecure: bool,
}

impl std::fmt::Debug for TlsSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsSettings").field("insecure", &self.insecure).finish_non_exhaustive()
    }
}

impl TlsSettings {
    /// Reads the certificates, those of the system too.
    pub(super) fn config(&self) -> Result<Arc<ClientConfig>> {
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().map_err(|error| setup("TLS", &error))?;
        let builder = if self.insecure {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Belief::All))
        } else {
            self.verifying(builder)?
        };
        let config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let chain = certificates(chain).map_err(|error| error.frame("the client's certificate"))?;
                let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| setup("the client's key", &error))?;
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity(chain, key)?)))
            }
        };
        Ok(Arc::new(config))
    }

    /// Believes what an authority has signed, and, as Go's programs do, a certificate that is itself among those of `ca`: many registries are
    /// set up with one that signs itself.
    fn verifying(&self, builder: ConfigBuilder<ClientConfig, WantsVerifier>) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>> {
        let roots = self.roots()?;
        let Some(ca) = &self.ca else { return Ok(builder.with_root_certificates(roots)) };
        let known = certificates(ca)?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let usual = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
        let usual = usual.map_err(|error| setup("the certificates of the authority", &error))?;
        Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(Belief::Known { usual, known })))
    }

    fn roots(&self) -> Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        if !self.only_ca {
            // A system without any, or with some that are broken, is not at fault until they are needed: then the issuer is unknown.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        if let Some(ca) = &self.ca {
            for certificate in certificates(ca).map_err(|error| error.frame("the certificates of the authority"))? {
                roots.add(certificate).map_err(|error| setup("the certificates of the authority", &error))?;
            }
        }
        Ok(roots)
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|error| Error::invalid(format_args!("it is not PEM: {error}")))?;
    if all.is_empty() { Err(Error::invalid("it has no certificate in PEM")) } else { Ok(all) }
}

fn setup(what: &str, error: &dyn std::fmt::Display) -> Error {
    Error::invalid(format_args!("{what} cannot be used: {error}"))
}

/// A connection, in clear or not, or one within another (through a proxy that is itself spoken to over TLS).
#[derive(Debug)]
pub(super) enum Stream {
    Plain(Socket),
    Tls(Box<Tls>),
}

#[derive(Debug)]
pub(super) struct Tls {
    tls: ClientConnection,
    below: Stream,
    host: String,
}

impl Stream {
    /// Speaks TLS from now on.
    pub(super) fn secure(self, config: Arc<ClientConfig>, url: &Url) -> Result<Self> {
        let host = url.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host.clone()).map_err(|_| Error::invalid(format_args!("TLS: {host} is no name of a host")))?;
        let tls = ClientConnection::new(config, name).map_err(|error| explain(&error, &host))?;
        let mut stream = Tls { tls, below: self, host };
        while stream.tls.is_handshaking() {
            let step = if stream.tls.wants_write() { stream.flush() } else { stream.fill(stream.below.idle()) };
            step.map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => closed("the connection was closed before TLS was set up"),
                _ => broken(error),
            })?;
        }
        stream.flush().map_err(broken)?;
        Ok(Self::Tls(Box::new(stream)))
    }

    /// Reads what there is, waiting for at most `limit`; 0 is the end as the other side meant it.
    pub(super) fn read(&mut self, buffer: &mut [u8], limit: Duration) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer, limit),
            Self::Tls(stream) => loop {
                match stream.tls.reader().read(buffer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.fill(limit)?,
                    done => return done,
                }
            },
        }
    }

    /// Writes a part. What came early ([`Early`]) may have stopped it before or after it took the part: [`flush`](Self::flush) tells.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(stream) => {
                // What is left of the last part goes first, so that no more than one part is kept.
                stream.flush()?;
                stream.tls.writer().write(bytes)
            }
        }
    }

    /// Writes what is still kept.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(stream) => stream.flush(),
        }
    }

    /// Writes all.
    pub(super) fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = self.write(bytes)?;
            bytes = &bytes[count..];
        }
        self.flush()
    }

    /// Whether an answer, or the end, is there to be read without waiting.
    pub(super) fn is_answered(&mut self) -> io::Result<bool> {
        match self {
            Self::Plain(socket) => Ok(socket.is_readable()),
            Self::Tls(stream) => {
                // There may be something to read that is no answer: tickets to resume the session.
                while !stream.has_plain()? {
                    if !stream.below.is_answered()? {
                        return Ok(false);
                    }
                    stream.fill(Duration::ZERO)?;
                }
                Ok(true)
            }
        }
    }

    /// While a request is sent, what comes back ends the writing with [`Early`].
    pub(super) fn watch(&mut self, watch: bool) {
        self.socket().watch = watch;
    }

    /// Stops waiting when `cancel` says so.
    pub(super) fn obey(&mut self, cancel: Cancel) {
        self.socket().cancel = cancel;
    }

    pub(super) fn idle(&self) -> Duration {
        match self {
            Self::Plain(socket) => socket.idle,
            Self::Tls(stream) => stream.below.idle(),
        }
    }

    fn socket(&mut self) -> &mut Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.below.socket(),
        }
    }
}

impl Tls {
    /// Reads one piece of what the other side has sent.
    fn fill(&mut self, limit: Duration) -> io::Result<()> {
        let mut below = Below { stream: &mut self.below, limit };
        if self.tls.read_tls(&mut below)? == 0 {
            // Without the closing alert this is an end that anybody on the way could have made.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Err(error) = self.tls.process_new_packets() {
            // The other side may be told why.
            let _ = self.flush();
            return Err(explain(&error, &self.host).into());
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            let mut below = Below { stream: &mut self.below, limit: Duration::ZERO };
            match self.tls.write_tls(&mut below) {
                Ok(_) => {}
                Err(error) if Early::is(&error) => {
                    self.fill(Duration::ZERO)?;
                    if self.has_plain()? {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        // A connection within another: the outer one keeps nothing either.
        self.below.flush()
    }

    /// Whether something of the answer is there, or its end.
    fn has_plain(&mut self) -> io::Result<bool> {
        let state = self.tls.process_new_packets().map_err(|error| io::Error::from(explain(&error, &self.host)))?;
        Ok(state.plaintext_bytes_to_read() > 0 || state.peer_has_closed())
    }
}

/// What TLS reads from and writes to.
struct Below<'a> {
    stream: &'a mut Stream,
    limit: Duration,
}

impl Read for Below<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer, self.limit)
    }
}

impl Write for Below<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// A connection that ended.
pub(super) fn closed(text: &str) -> Error {
    Error::new(ErrorKind::Unavailable, text)
}

/// Whatever the system says of a connection that was there: it is gone.
pub(super) fn broken(error: io::Error) -> Error {
    if error.get_ref().is_some_and(|inner| inner.is::<Error>()) {
        return Error::io(error);
    }
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::WriteZero => closed("the connection was closed"),
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe => {
            closed("the connection was closed by the other side")
        }
        _ => closed(&Error::io(error).to_string()),
    }
}

/// What went wrong, for people. A certificate that is not believed is [`ErrorKind::Denied`]: trying again does not help.
fn explain(error: &rustls::Error, host: &str) -> Error {
    use rustls::Error as Tls;
    match error {
        Tls::InvalidCertificate(reason) => {
            let reason = match reason {
                CertificateError::UnknownIssuer => "nobody who is trusted has signed it".to_owned(),
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired".to_owned(),
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "it is not valid yet".to_owned(),
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                    "it is made out to another name".to_owned()
                }
                other => other.to_string(),
            };
            Error::new(ErrorKind::Denied, format!("TLS: the certificate of {host} is not valid: {reason}"))
                .hint("give the authority's certificate with --ca FILE, or believe any with --insecure")
        }
        Tls::AlertReceived(AlertDescription::CertificateRequired | AlertDescription::AccessDenied) => {
            Error::new(ErrorKind::Denied, format!("TLS: {host} wants to see a certificate of ours"))
                .hint("give it with --cert FILE and --key FILE")
        }
        Tls::AlertReceived(
            alert @ (AlertDescription::BadCertificate | AlertDescription::UnknownCA | AlertDescription::CertificateUnknown),
        ) => Error::new(ErrorKind::Denied, format!("TLS: {host} does not believe our certificate: {alert:?}")),
        Tls::InvalidMessage(_) => {
            Error::unsupported(format_args!("TLS: what {host} answers is not TLS")).hint("use --insecure if it speaks plain HTTP")
        }
        other => Error::unsupported(format_args!("TLS: {other}")),
    }
}

/// Who we are. A certificate of version 1, which OpenSSL 3.0 makes where nobody asks for more, cannot be read here and is the server's business.
fn identity(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<CertifiedKey> {
    let failed = |error: rustls::Error| setup("the client's certificate and key", &error);
    let key = aws_lc_rs::default_provider().key_provider.load_private_key(key).map_err(failed)?;
    let identity = CertifiedKey::new(chain, key);
    match identity.keys_match() {
        Ok(()) | Err(rustls::Error::InvalidCertificate(CertificateError::Other(_))) => Ok(identity),
        Err(error) => Err(failed(error)),
    }
}

/// Whom we believe to be the host that was asked for.
#[derive(Debug)]
enum Belief {
    /// Everybody: what `--insecure` asks for.
    All,
    /// Whom the usual verifier believes, and certificates that the caller gave by name.
    Known { usual: Arc<WebPkiServerVerifier>, known: Vec<CertificateDer<'static>> },
}

impl ServerCertVerifier for Belief {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Self::Known { usual, known } = self else { return Ok(ServerCertVerified::assertion()) };
        match usual.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // webpki does not take an authority for a server, and asks who has signed it; where it is known, its name is what is left to look at.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::Other(_) | CertificateError::UnknownIssuer | CertificateError::BadSignature,
            )) if known.iter().any(|known| known == end_entity) => {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            done => done,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        match self {
            Self::All => Ok(HandshakeSignatureValid::assertion()),
            Self::Known { usual, .. } => usual.verify_tls12_signature(message, certificate, signed),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        match self {
            Self::All => Ok(HandshakeSignatureValid::assertion()),
            Self::Known { usual, .. } => usual.verify_tls13_signature(message, certificate, signed),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
