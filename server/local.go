package server

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Local is what a server on this machine alone shows and is shown: a certificate
// that it made itself, which whoever asks trusts by its file, and a token that
// who may read the state directory can show.
type Local struct {
	Certificate tls.Certificate
	CAFile      string // PEM; for curl --cacert, NODE_EXTRA_CA_CERTS and their like
	Token       string
	TokenFile   string
}

// localLife is how long a local certificate lasts; a day before its end another
// is made.
const localLife = 365 * 24 * time.Hour

// OpenLocal reads what dir holds and makes what it lacks; dir is private.
func OpenLocal(dir string) (*Local, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	l := &Local{CAFile: filepath.Join(dir, "certificate.pem"), TokenFile: filepath.Join(dir, "token")}
	key := filepath.Join(dir, "key.pem")
	var err error
	if l.Certificate, err = tls.LoadX509KeyPair(l.CAFile, key); err != nil || time.Until(l.Certificate.Leaf.NotAfter) < 24*time.Hour {
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("the local certificate in %s: %w; remove it and another is made", dir, err)
		}
		if err := makeCertificate(l.CAFile, key); err != nil {
			return nil, err
		}
		if l.Certificate, err = tls.LoadX509KeyPair(l.CAFile, key); err != nil {
			return nil, err
		}
	}
	l.Token, err = openToken32(l.TokenFile)
	return l, err
}

func openToken32(path string) (string, error) {
	b, err := os.ReadFile(path)
	switch {
	case err == nil && len(b) == 64:
		return string(b), nil
	case err == nil:
		return "", fmt.Errorf("%s: is not a token of 64 digits; remove it and another is made", path)
	case !errors.Is(err, fs.ErrNotExist):
		return "", err
	}
	var secret [32]byte
	rand.Read(secret[:])
	token := hex.EncodeToString(secret[:])
	return token, writePrivate(path, []byte(token))
}

// makeCertificate writes the key first: a certificate without one is no use.
func makeCertificate(certFile, keyFile string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
	if err != nil {
		return err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "exeq serve --dev"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(localLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		DNSNames:              []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := writePrivate(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})); err != nil {
		return err
	}
	return writePrivate(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}))
}

// writePrivate puts a whole file in place, for its owner alone.
func writePrivate(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
