package exeq

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/exeq/exeq/internal/canon"
)

// Names that stand in artifacts. Each is stated once, here; a change of any of
// them is a new version of the artifact.
const (
	// Module is the module path and the prefix of every predicate type.
	Module = "github.com/exeq/exeq"
	// PermitPredicate is the in-toto predicate type of a permit.
	PermitPredicate = "https://" + Module + "/permit/v1"
	// ScopePredicate is that of a mandatory scope's statement.
	ScopePredicate = "https://" + Module + "/scope/v1"
	// StatementType is in-toto's Statement v1.
	StatementType = "https://in-toto.io/Statement/v1"
	// StatementPayload is the DSSE payload type of an in-toto statement.
	StatementPayload = "application/vnd.in-toto+json"

	// ExecutionVariable names, inside an execution, the execution.
	ExecutionVariable = "EXEQ_EXECUTION"

	tagAction     = "exeq.dev/action/v1\x00"
	tagInputs     = "exeq.dev/inputs/v1\x00"
	tagRights     = "exeq.dev/rights/v1\x00"
	tagCommitment = "exeq.dev/commitment/v1\x00"
	tagLeafSig    = "exeq.dev/leaf-signature/v1\x00"
	tagRenewal    = "exeq.dev/renewal/v1\x00"
	tagRevocation = "exeq.dev/revocation/v1\x00"
	tagPolicySet  = "exeq.dev/policyset/v1\x00"
	tagEnclosure  = "exeq.dev/enclosure/v1\x00"

	tagScope       = "exeq.dev/scope/v1\x00"
	tagScopeReport = "exeq.dev/scope-report/v1\x00"
	tagOpening     = "exeq.dev/opening/v1\x00"
)

// Digest is a SHA-256 digest; in JSON 64 lower-case hexadecimal digits.
type Digest [sha256.Size]byte

// IsZero reports whether d was never set.
func (d Digest) IsZero() bool { return d == Digest{} }

// String gives the 64 hexadecimal digits.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText implements encoding.TextMarshaler.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// AppendText implements encoding.TextAppender.
func (d Digest) AppendText(b []byte) ([]byte, error) { return hex.AppendEncode(b, d[:]), nil }

// UnmarshalText implements encoding.TextUnmarshaler; it takes lower case only,
// so that a digest has one spelling.
func (d *Digest) UnmarshalText(b []byte) error {
	if len(b) != 2*sha256.Size {
		return fmt.Errorf("digest: want 64 hexadecimal digits, got %d characters", len(b))
	}
	for _, c := range b {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return errors.New("digest: want lower-case hexadecimal digits")
		}
	}
	_, err := hex.Decode(d[:], b)
	return err
}

// Sum is SHA-256 over tag ‖ data: every digest that Exeq defines is domain
// separated by a tag that ends in a NUL.
func sum(tag string, data []byte) Digest {
	h := sha256.New()
	h.Write([]byte(tag))
	h.Write(data)
	return Digest(h.Sum(nil))
}

// PolicySetDigest is SHA-256("exeq.dev/policyset/v1" NUL ‖ canonical source).
func PolicySetDigest(source []byte) Digest { return sum(tagPolicySet, source) }

func canonical(v any) ([]byte, error) { return canon.Marshal(v) }

func newSalt() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// Time is a UTC time at millisecond resolution, in JSON always
// "2006-01-02T15:04:05.000Z".
type Time struct{ time.Time }

const timeLayout = "2006-01-02T15:04:05.000Z"

// At truncates t to the resolution that artifacts carry.
func At(t time.Time) Time { return Time{t.UTC().Truncate(time.Millisecond)} }

// String gives the artifact form.
func (t Time) String() string { return t.UTC().Format(timeLayout) }

// MarshalText implements encoding.TextMarshaler.
func (t Time) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// AppendText implements encoding.TextAppender (time.Time's own would win otherwise).
func (t Time) AppendText(b []byte) ([]byte, error) {
	u := t.UTC()
	year, month, day := u.Date()
	if year < 0 || year > 9999 {
		return u.AppendFormat(b, timeLayout), nil
	}
	hour, minute, second := u.Clock()
	b = appendDigits(b, year, 4)
	b = appendDigits(append(b, '-'), int(month), 2)
	b = appendDigits(append(b, '-'), day, 2)
	b = appendDigits(append(b, 'T'), hour, 2)
	b = appendDigits(append(b, ':'), minute, 2)
	b = appendDigits(append(b, ':'), second, 2)
	b = appendDigits(append(b, '.'), u.Nanosecond()/1e6, 3)
	return append(b, 'Z'), nil
}

// appendDigits writes n in so many digits.
func appendDigits(b []byte, n, digits int) []byte {
	b = append(b, "0000"[:digits]...)
	for i := 1; i <= digits; i++ {
		b[len(b)-i] = '0' + byte(n%10)
		n /= 10
	}
	return b
}

// MarshalJSON implements json.Marshaler (time.Time's own would win otherwise).
func (t Time) MarshalJSON() ([]byte, error) { return []byte(`"` + t.String() + `"`), nil }

// UnmarshalJSON implements json.Unmarshaler.
func (t *Time) UnmarshalJSON(b []byte) error {
	if len(b) < 2 || b[0] != '"' || b[len(b)-1] != '"' {
		return errors.New("time: want a string")
	}
	return t.UnmarshalText(b[1 : len(b)-1])
}

// UnmarshalText implements encoding.TextUnmarshaler; it takes the artifact
// form only.
func (t *Time) UnmarshalText(b []byte) error {
	p, err := time.Parse(timeLayout, string(b))
	if err != nil || p.Format(timeLayout) != string(b) {
		return fmt.Errorf("time: %q is not of the form %s", b, timeLayout)
	}
	t.Time = p
	return nil
}

// EncodeBytes maps any byte string (a path, an argument, an environment value)
// to printable UTF-8, one way only: bytes that are not valid UTF-8, '%', and
// runes that do not print become %XX with upper-case hexadecimal digits.
func EncodeBytes(s string) string {
	if plainText(s) {
		return s
	}
	clean := true
	for _, r := range s {
		if r == '%' || r == utf8.RuneError || !unicode.IsPrint(r) {
			clean = false
			break
		}
	}
	if clean {
		return s
	}
	const digits = "0123456789ABCDEF"
	out := make([]byte, 0, len(s)+16)
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == '%' || (r == utf8.RuneError && n <= 1) || !unicode.IsPrint(r) {
			for _, b := range []byte(s[i : i+n]) {
				out = append(out, '%', digits[b>>4], digits[b&15])
			}
		} else {
			out = append(out, s[i:i+n]...)
		}
		i += n
	}
	return string(out)
}

// plainText reports whether s is of printable ASCII without '%': it is its own
// encoding.
func plainText(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c >= 0x7f || c == '%' {
			return false
		}
	}
	return true
}

// DecodeBytes is the inverse of EncodeBytes; it refuses every spelling that
// EncodeBytes would not have written.
func DecodeBytes(s string) (string, error) {
	if plainText(s) || strings.IndexByte(s, '%') < 0 && EncodeBytes(s) == s {
		return s, nil
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			out = append(out, s[i])
			continue
		}
		if i+2 >= len(s) {
			return "", fmt.Errorf("encoded bytes: %q ends inside an escape", s)
		}
		var b [1]byte
		if _, err := hex.Decode(b[:], []byte(s[i+1:i+3])); err != nil {
			return "", fmt.Errorf("encoded bytes: %q has a bad escape", s)
		}
		out = append(out, b[0])
		i += 2
	}
	if EncodeBytes(string(out)) != s {
		return "", fmt.Errorf("encoded bytes: %q is not in the one accepted spelling", s)
	}
	return string(out), nil
}

// Readable is what EncodeBytes wrote as a person reads it: printable text as it
// is, and every other byte escaped, so that no terminal obeys it. It is not
// reversible; what is no such spelling is escaped as it stands.
func Readable(s string) string {
	if raw, err := DecodeBytes(s); err == nil {
		s = raw
	}
	if plainText(s) {
		return s
	}
	var out strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case unicode.IsPrint(r) && (r != utf8.RuneError || n > 1):
			out.WriteString(s[i : i+n])
		case r == '\n':
			out.WriteString(`\n`)
		case r == '\t':
			out.WriteString(`\t`)
		default:
			for _, b := range []byte(s[i : i+n]) {
				fmt.Fprintf(&out, `\x%02x`, b)
			}
		}
		i += n
	}
	return out.String()
}
