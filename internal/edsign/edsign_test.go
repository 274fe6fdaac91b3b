package edsign

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"flag"
	"os"
	"testing"

	"filippo.io/edwards25519"
	"filippo.io/edwards25519/field"
)

var write = flag.Bool("write", false, "write base.bin anew")

// TestTable: base.bin is what its comment says.
func TestTable(t *testing.T) {
	var want []byte
	row := edwards25519.NewGeneratorPoint()
	for range rows {
		p := new(edwards25519.Point).Set(row)
		for range columns {
			x, y, z, _ := p.ExtendedCoordinates()
			z.Invert(z)
			x.Multiply(x, z)
			y.Multiply(y, z)
			var e field.Element
			want = append(want, e.Add(y, x).Bytes()...)
			want = append(want, e.Subtract(y, x).Bytes()...)
			e.Multiply(x, y)
			e.Multiply(&e, d(t))
			want = append(want, e.Add(&e, &e).Bytes()...)
			p.Add(p, row)
		}
		for range 8 {
			row.Add(row, row)
		}
	}
	if *write {
		if err := os.WriteFile("base.bin", want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(want, []byte(baseBytes)) {
		t.Error("base.bin is not the table of the base point")
	}
}

// d is the constant of the curve, −121665/121666.
func d(t *testing.T) *field.Element {
	small := func(n uint32) *field.Element {
		b := make([]byte, element)
		b[0], b[1], b[2] = byte(n), byte(n>>8), byte(n>>16)
		e, err := new(field.Element).SetBytes(b)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	e := new(field.Element).Invert(small(121666))
	return e.Negate(e.Multiply(e, small(121665)))
}

// TestSame: keys and signatures are those of crypto/ed25519, and two processes
// of two minds about them would be a defect of either.
func TestSame(t *testing.T) {
	seed, message := make([]byte, ed25519.SeedSize), make([]byte, 300)
	for i := range 2000 {
		rand.Read(seed)
		rand.Read(message)
		want := ed25519.NewKeyFromSeed(seed)
		if got := NewKeyFromSeed(seed); !bytes.Equal(got, want) {
			t.Fatalf("seed %x: key %x, want %x", seed, got, want)
		}
		m := message[:i%len(message)]
		if got, want := Sign(want, m), ed25519.Sign(want, m); !bytes.Equal(got, want) {
			t.Fatalf("seed %x, message %x: signature %x, want %x", seed, m, got, want)
		}
	}
}

// TestBaseMult at the ends of what scalars and their digits can be.
func TestBaseMult(t *testing.T) {
	one, err := new(edwards25519.Scalar).SetCanonicalBytes(append([]byte{1}, make([]byte, 31)...))
	if err != nil {
		t.Fatal(err)
	}
	zero := edwards25519.NewScalar()
	cases := []*edwards25519.Scalar{zero, one, new(edwards25519.Scalar).Negate(one)}
	for i := range 252 { // 2^i − 1, 2^i, 2^i + 1
		var b [32]byte
		b[i/8] = 1 << (i % 8)
		s, err := new(edwards25519.Scalar).SetCanonicalBytes(b[:])
		if err != nil {
			t.Fatal(err)
		}
		cases = append(cases, s, new(edwards25519.Scalar).Add(s, one), new(edwards25519.Scalar).Subtract(s, one), new(edwards25519.Scalar).Negate(s))
	}
	for n := range 256 { // every pair of digits, everywhere
		var b [64]byte
		for i := range 31 {
			b[i] = byte(n)
		}
		s, err := new(edwards25519.Scalar).SetUniformBytes(b[:])
		if err != nil {
			t.Fatal(err)
		}
		cases = append(cases, s)
	}
	for _, s := range cases {
		if got, want := baseMult(s), new(edwards25519.Point).ScalarBaseMult(s); got.Equal(want) != 1 {
			t.Errorf("%x·B is %x, want %x", s.Bytes(), got.Bytes(), want.Bytes())
		}
	}
}

// TestLengths: what is no seed and no key is a defect of the caller.
func TestLengths(t *testing.T) {
	for name, f := range map[string]func(){
		"a short seed": func() { NewKeyFromSeed(make([]byte, 31)) },
		"a long key":   func() { Sign(make([]byte, 65), nil) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s is taken", name)
				}
			}()
			f()
		}()
	}
}

func BenchmarkSign(b *testing.B) {
	key := NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	for _, by := range []struct {
		name string
		sign func(ed25519.PrivateKey, []byte) []byte
	}{{"edsign", Sign}, {"crypto", ed25519.Sign}} {
		b.Run(by.name, func(b *testing.B) {
			for b.Loop() {
				by.sign(key, key)
			}
		})
	}
}
