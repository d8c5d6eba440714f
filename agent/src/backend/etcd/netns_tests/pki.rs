//! Certificates for the tests, made by openssl.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use beeline_tests::exec;
use tempfile::TempDir;

/// An authority, and certificates that it has signed.
pub(super) struct Pki {
    folder: TempDir,
}

impl Pki {
    /// A new authority.
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pki = Self { folder };
        let extensions = [
            "-addext",
            "basicConstraints=critical,CA:TRUE",
            "-addext",
            "keyUsage=critical,keyCertSign",
        ];
        pki.openssl(&[&request("ca", "-x509")[..], &extensions].concat());
        pki
    }

    /// Signs a certificate for these addresses.
    pub(super) fn sign(&self, name: &str, addresses: &[&str]) {
        self.openssl(&request(name, "-new"));
        let names: Vec<_> = addresses
            .iter()
            .map(|address| format!("IP:{address}"))
            .collect();
        let mut extensions = "extendedKeyUsage=serverAuth,clientAuth\n".to_owned();
        if !names.is_empty() {
            extensions += &format!("subjectAltName={}\n", names.join(","));
        }
        fs::write(self.path("extensions"), extensions).unwrap();
        fs::rename(self.cert(name), self.path("request")).unwrap();
        let sign = "x509 -req -in request -CA ca.crt -CAkey ca.key -CAcreateserial -days 7 -extfile extensions -out";
        let cert = format!("{name}.crt");
        let mut arguments: Vec<_> = sign.split(' ').collect();
        arguments.push(&cert);
        self.openssl(&arguments);
    }

    fn openssl(&self, arguments: &[&str]) {
        let mut command = Command::new("openssl");
        exec::stdout(command.args(arguments).current_dir(self.folder.path())).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new(self.folder.path()).join(name)
    }

    pub(super) fn ca(&self) -> PathBuf {
        self.cert("ca")
    }

    pub(super) fn cert(&self, name: &str) -> PathBuf {
        self.path(&format!("{name}.crt"))
    }

    pub(super) fn key(&self, name: &str) -> PathBuf {
        self.path(&format!("{name}.key"))
    }
}

/// Arguments that make a key and a certificate or a request of a name.
fn request<'a>(name: &'a str, kind: &'a str) -> Vec<&'a str> {
    let (subject, key, out) = match name {
        "ca" => ("/CN=ca", "ca.key", "ca.crt"),
        "server" => ("/CN=server", "server.key", "server.crt"),
        "client" => ("/CN=client", "client.key", "client.crt"),
        _ => panic!("{name}"),
    };
    let arguments = [
        "req",
        kind,
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-subj",
        subject,
    ];
    [&arguments[..], &["-days", "7", "-keyout", key, "-out", out]].concat()
}
