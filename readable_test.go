package exeq

import "testing"

func TestReadable(t *testing.T) {
	for raw, want := range map[string]string{
		"date +%s":              "date +%s",
		"a\nb\tc":               `a\nb\tc`,
		"\x1b]0;title\a\x1b[2J": `\x1b]0;title\x07\x1b[2J`,
		"grün 100% \\n":         "grün 100% \\n",
		"\xff\u202ex\u00a0":     `\xff\xe2\x80\xaex\xc2\xa0`,
		"":                      "",
	} {
		if got := Readable(EncodeBytes(raw)); got != want {
			t.Errorf("%q: %q, want %q", raw, got, want)
		}
	}
	// What nobody encoded steers no terminal either.
	for s, want := range map[string]string{"%zz\x1b": `%zz\x1b`, "%1b": "%1b", "\r": `\x0d`} {
		if got := Readable(s); got != want {
			t.Errorf("%q: %q, want %q", s, got, want)
		}
	}
}
