package exeq

import (
	"testing"
	"time"
)

// A digest and a time are spelled one way whichever method a writer uses;
// time.Time's own would otherwise be promoted.
func TestTextHasOneSpelling(t *testing.T) {
	at, d := At(time.UnixMilli(1_790_000_000_120).In(time.FixedZone("x", 3600))), Digest{0xab, 31: 1}
	for _, c := range []struct {
		v interface {
			MarshalText() ([]byte, error)
			AppendText([]byte) ([]byte, error)
		}
		want string
	}{
		{at, "2026-09-21T14:13:20.120Z"},
		{d, "ab00000000000000000000000000000000000000000000000000000000000001"},
	} {
		marshalled, err := c.v.MarshalText()
		if err != nil || string(marshalled) != c.want {
			t.Errorf("MarshalText of %T: %q, %v; want %q", c.v, marshalled, err, c.want)
		}
		if appended, err := c.v.AppendText(nil); err != nil || string(appended) != c.want {
			t.Errorf("AppendText of %T: %q, %v; want %q", c.v, appended, err, c.want)
		}
		if canonical, err := canonical(c.v); err != nil || string(canonical) != `"`+c.want+`"` {
			t.Errorf("canonical form of %T: %s, %v", c.v, canonical, err)
		}
	}
}

// AppendText writes its digits itself; String has the layout.
func TestTimeAgreesWithItsLayout(t *testing.T) {
	for _, at := range []time.Time{
		{}, time.Unix(0, 0), time.UnixMilli(-1), time.UnixMilli(951_782_399_999), time.UnixMilli(253_402_300_799_999),
		time.Date(2024, 2, 29, 0, 0, 0, 9_999_999, time.FixedZone("x", -5*3600)),
		time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(-1, 12, 31, 23, 59, 59, 0, time.UTC),
	} {
		got, err := Time{at}.AppendText(nil)
		if want := (Time{at}).String(); err != nil || string(got) != want {
			t.Errorf("%v: %s, %v; want %s", at, got, err, want)
		}
	}
}
