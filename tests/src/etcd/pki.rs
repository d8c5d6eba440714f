//! Certificates for the tests, made by openssl.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::exec;

/// An authority, and certificates that it has signed.
#[derive(Debug)]
pub struct Pki {
    folder: TempDir,
}

impl Pki {
    /// A new authority of this name.
    pub fn new(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pki = Self { folder };
        let mut arguments = request("ca", "-x509", name);
        for extension in [
            "basicConstraints=critical,CA:TRUE",
            "keyUsage=critical,keyCertSign",
        ] {
            arguments.extend(["-addext".to_owned(), extension.to_owned()]);
        }
        pki.openssl(&arguments);
        pki
    }

    /// Signs a certificate for these addresses.
    pub fn sign(&self, name: &str, addresses: &[&str]) {
        self.openssl(&request(name, "-new", name));
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
        let sign = format!(
            "x509 -req -in request -CA ca.crt -CAkey ca.key -CAcreateserial -days 7 -extfile extensions -out {name}.crt"
        );
        let sign: Vec<_> = sign.split(' ').map(str::to_owned).collect();
        self.openssl(&sign);
    }

    fn openssl(&self, arguments: &[String]) {
        let mut command = Command::new("openssl");
        exec::stdout(command.args(arguments).current_dir(self.folder.path())).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new(self.folder.path()).join(name)
    }

    /// The authority's own certificate.
    pub fn ca(&self) -> PathBuf {
        self.cert("ca")
    }

    /// The certificate of a name.
    pub fn cert(&self, name: &str) -> PathBuf {
        self.path(&format!("{name}.crt"))
    }

    /// The key of a certificate.
    pub fn key(&self, name: &str) -> PathBuf {
        self.path(&format!("{name}.key"))
    }
}

/// Arguments that make a key and a certificate or a request of a name.
fn request(file: &str, kind: &str, name: &str) -> Vec<String> {
    let arguments = format!(
        "req {kind} -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 7 -subj /CN={name} -keyout {file}.key -out {file}.crt"
    );
    arguments.split(' ').map(str::to_owned).collect()
}
