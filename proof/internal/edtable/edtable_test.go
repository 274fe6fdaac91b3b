package edtable

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha512"
	"fmt"
	"slices"
	"sync"
	"testing"

	"filippo.io/edwards25519"
)

// keys gives the key verified by every kind of table, and by crypto/ed25519.
func keys(t testing.TB, pub []byte) []*Key {
	t.Helper()
	out := []*Key{New(pub)}
	for _, n := range []int{few, many} {
		k := New(pub)
		k.Expect(n)
		if _, err := new(edwards25519.Point).SetBytes(pub); (k.tables.Load() != nil) != (err == nil) {
			t.Fatalf("Expect(%d) of %x made no table, or one of no point (%v)", n, pub, err)
		}
		out = append(out, k)
	}
	return out
}

// same compares with crypto/ed25519, alone and beside others, and gives its
// answer.
func same(t testing.TB, ks []*Key, what string, pub, message, sig []byte) bool {
	t.Helper()
	want := ed25519.Verify(pub, message, sig)
	var all []Signature
	for i, k := range ks {
		if got := k.Verify(message, sig); got != want {
			t.Fatalf("%s: tables[%d] say %v, crypto/ed25519 %v: key %x, message %x, signature %x", what, i, got, want, pub, message, sig)
		}
		all = append(all, Signature{k, message, sig})
	}
	for i, got := range Verify(append(all, all...)) {
		if got != want {
			t.Fatalf("%s: beside others, [%d] is %v, crypto/ed25519 says %v: key %x, message %x, signature %x", what, i, got, want, pub, message, sig)
		}
	}
	return want
}

func newKey(t testing.TB) (ed25519.PublicKey, ed25519.PrivateKey, []*Key) {
	t.Helper()
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return pub, priv, keys(t, pub)
}

func TestGenuine(t *testing.T) {
	for range 20 {
		pub, priv, ks := newKey(t)
		for n := range 40 {
			message := bytes.Repeat([]byte{byte(n)}, n*17)
			if !same(t, ks, "genuine", pub, message, ed25519.Sign(priv, message)) {
				t.Fatal("a genuine signature is refused")
			}
		}
	}
}

// Every bit of signature and message.
func TestEachBitFlipped(t *testing.T) {
	pub, priv, ks := newKey(t)
	message := []byte("what was signed")
	sig := ed25519.Sign(priv, message)
	for i := range 8 * len(sig) {
		bad := bytes.Clone(sig)
		bad[i/8] ^= 1 << (i % 8)
		if same(t, ks, "signature", pub, message, bad) {
			t.Errorf("bit %d flipped is accepted", i)
		}
	}
	for i := range 8 * len(message) {
		bad := bytes.Clone(message)
		bad[i/8] ^= 1 << (i % 8)
		if same(t, ks, "message", pub, bad, sig) {
			t.Errorf("bit %d of the message flipped is accepted", i)
		}
	}
	for _, n := range []int{0, 1, 32, 63, 65, 128} {
		if same(t, ks, "length", pub, message, append(bytes.Clone(sig), sig...)[:n]) {
			t.Errorf("%d bytes are accepted", n)
		}
	}
}

// What a batch with equal weights, or one that mixes its signatures up, would
// take.
func TestAmongOthers(t *testing.T) {
	pub, priv, ks := newKey(t)
	other, otherPriv, _ := newKey(t)
	one := scalar(1)
	for _, k := range ks {
		good := func(i int) Signature {
			m := fmt.Appendf(nil, "message %d", i)
			return Signature{k, m, ed25519.Sign(priv, m)}
		}
		for name, bend := range map[string]func(s []Signature){
			"two errors that add up to none": func(s []Signature) {
				s[3].Sig = moved(s[3].Sig, one)
				s[7].Sig = moved(s[7].Sig, new(edwards25519.Scalar).Negate(one))
			},
			"two signatures exchanged":       func(s []Signature) { s[3].Sig, s[7].Sig = s[7].Sig, s[3].Sig },
			"one signature for two messages": func(s []Signature) { s[3].Sig, s[7].Sig = s[1].Sig, s[1].Sig },
			"R of another": func(s []Signature) {
				s[3].Sig = append(bytes.Clone(s[1].Sig[:32]), s[3].Sig[32:]...)
				s[7].Sig = append(bytes.Clone(s[1].Sig[:32]), s[7].Sig[32:]...)
			},
			"S of another":       func(s []Signature) { s[3].Sig, s[7].Sig = cross(s[3].Sig, s[7].Sig), cross(s[7].Sig, s[3].Sig) },
			"of another key":     func(s []Signature) { s[3].Sig, s[7].Sig = ed25519.Sign(otherPriv, s[3].Message), nil },
			"by another's table": func(s []Signature) { s[3].Key, s[7].Key = keys(t, other)[1], keys(t, other)[2] },
		} {
			var s []Signature
			for i := range 20 {
				s = append(s, good(i))
			}
			bend(s)
			for i, ok := range Verify(s) {
				if want := i != 3 && i != 7; ok != want || ok != ed25519.Verify(s[i].Key.pub, s[i].Message, s[i].Sig) {
					t.Errorf("%s: [%d] is %v", name, i, ok)
				}
			}
		}
		if len(Verify(nil)) != 0 {
			t.Error("results of no signatures")
		}
	}
	// One nonce for two messages gives the key away, and is valid.
	seed := sha512.Sum512(priv.Seed())
	a, _ := new(edwards25519.Scalar).SetBytesWithClamping(seed[:32])
	r := scalar(77)
	R := new(edwards25519.Point).ScalarBaseMult(r)
	for _, m := range []string{"one", "two"} {
		if !same(t, ks, "same R", pub, []byte(m), sign(a, r, R.Bytes(), pub, []byte(m))) {
			t.Error("a second signature with one R is refused")
		}
	}
}

// cross is R of one signature with S of another.
func cross(r, s []byte) []byte { return append(bytes.Clone(r[:32]), s[32:]...) }

// moved adds to S.
func moved(sig []byte, by *edwards25519.Scalar) []byte {
	s, err := new(edwards25519.Scalar).SetCanonicalBytes(sig[32:])
	if err != nil {
		panic(err)
	}
	return append(bytes.Clone(sig[:32]), s.Add(s, by).Bytes()...)
}

// sign completes a signature whose R the holder of a has chosen, r its
// logarithm but for a part of small order.
func sign(a, r *edwards25519.Scalar, R, pub, message []byte) []byte {
	s := new(edwards25519.Scalar).MultiplyAdd(hram(R, pub, message), a, r)
	return append(bytes.Clone(R), s.Bytes()...)
}

func hram(R, pub, message []byte) *edwards25519.Scalar {
	h := sha512.Sum512(slices.Concat(R, pub, message))
	k, err := new(edwards25519.Scalar).SetUniformBytes(h[:])
	if err != nil {
		panic(err)
	}
	return k
}

func scalar(n byte) *edwards25519.Scalar {
	s, err := new(edwards25519.Scalar).SetCanonicalBytes(append([]byte{n}, make([]byte, 31)...))
	if err != nil {
		panic(err)
	}
	return s
}

// smallOrder gives the eight points of small order.
func smallOrder(t testing.TB) []*edwards25519.Point {
	t.Helper()
	most := new(edwards25519.Scalar).Negate(scalar(1)) // ℓ-1
	for {
		var b [32]byte
		rand.Read(b[:])
		p, err := new(edwards25519.Point).SetBytes(b[:])
		if err != nil {
			continue
		}
		p.Add(p, new(edwards25519.Point).ScalarMult(most, p)) // [ℓ]p
		out := []*edwards25519.Point{edwards25519.NewIdentityPoint()}
		for range 7 {
			out = append(out, new(edwards25519.Point).Add(out[len(out)-1], p))
		}
		if out[4].Equal(out[0]) == 0 { // p has order 8
			return out
		}
	}
}

// spellings are all encodings that are read as the point: besides its own the
// one with y+p, and where x is 0 either with a sign.
func spellings(t testing.TB, p *edwards25519.Point) (out [][]byte) {
	t.Helper()
	own := p.Bytes()
	high := bytes.Repeat([]byte{0xff}, 32)
	high[31] = 0x7f | own[31]&0x80
	high[0] = 0xed + own[0] // 2^255-19+y, for y below 19
	for _, b := range [][]byte{own, high} {
		for _, sign := range []byte{0, 0x80} {
			b := bytes.Clone(b)
			b[31] ^= sign
			if q, err := new(edwards25519.Point).SetBytes(b); err == nil && q.Equal(p) == 1 {
				out = append(out, b)
			}
		}
	}
	return out
}

// Keys and points R of small order, in all their spellings, beside each S of
// interest: the cases 0, 2 and 8 to 11 of "Taming the many EdDSAs" (Chalkias,
// Garillot, Nikolaenko; 2020), and those of ZIP 215.
func TestSmallOrder(t *testing.T) {
	var encodings [][]byte
	for _, p := range smallOrder(t) {
		encodings = append(encodings, spellings(t, p)...)
	}
	if len(encodings) != 14 {
		t.Fatalf("%d spellings of points of small order, want 14", len(encodings))
	}
	accepted := 0
	for _, pub := range encodings {
		ks := keys(t, pub)
		for _, R := range encodings {
			for _, s := range []byte{0, 1} {
				for n := range byte(8) {
					if same(t, ks, "small order", pub, []byte{n}, append(bytes.Clone(R), scalar(s).Bytes()...)) {
						accepted++
					}
				}
			}
		}
	}
	if accepted == 0 {
		t.Error("none was accepted: the cases that crypto/ed25519 takes are not among them")
	}
}

// A holder's key, R, or both, with a part of small order: cases 1 to 5 of the
// same paper. What only the equation times the cofactor accepts is refused.
func TestMixedOrder(t *testing.T) {
	small := smallOrder(t)
	for i, part := range small {
		a := hram([]byte{byte(i)}, nil, nil)
		A := new(edwards25519.Point).ScalarBaseMult(a)
		pub := A.Add(A, part).Bytes()
		ks := keys(t, pub)
		taken, cofactored := 0, 0
		for j, more := range small {
			for n := range byte(16) {
				r, m := scalar(n+1), []byte{byte(j), n}
				R := new(edwards25519.Point).ScalarBaseMult(r)
				sig := sign(a, r, R.Add(R, more).Bytes(), pub, m)
				if !holdsTimes8(t, pub, m, sig) {
					t.Fatal("the test's signature does not hold times the cofactor")
				}
				cofactored++
				if same(t, ks, "mixed order", pub, m, sig) {
					taken++
				}
			}
			// R of small order, S made for it.
			m := []byte{byte(j)}
			same(t, ks, "R of small order", pub, m, sign(a, scalar(0), more.Bytes(), pub, m))
		}
		if taken == 0 || taken == cofactored {
			t.Errorf("key %d: crypto/ed25519 takes %d of %d, want some and not all", i, taken, cofactored)
		}
	}
}

// holdsTimes8 is the check of RFC 8032 with the cofactor: [8][S]B = [8]R + [8][k]A.
func holdsTimes8(t *testing.T, pub, m, sig []byte) bool {
	t.Helper()
	A, err := new(edwards25519.Point).SetBytes(pub)
	if err != nil {
		t.Fatal(err)
	}
	R, err := new(edwards25519.Point).SetBytes(sig[:32])
	if err != nil {
		t.Fatal(err)
	}
	s, err := new(edwards25519.Scalar).SetCanonicalBytes(sig[32:])
	if err != nil {
		t.Fatal(err)
	}
	k := hram(sig[:32], pub, m)
	d := new(edwards25519.Point).VarTimeDoubleScalarBaseMult(k.Negate(k), A, s)
	d.Subtract(d, R)
	return d.MultByCofactor(d).Equal(edwards25519.NewIdentityPoint()) == 1
}

// order is ℓ, little-endian.
var order = []byte{0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
	0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10}

// S beyond the order of B, cases 6 and 7: the same point, another signature.
func TestLargeS(t *testing.T) {
	pub, priv, ks := newKey(t)
	m := []byte("m")
	sig := ed25519.Sign(priv, m)
	for range 15 { // S + nℓ, to 2^256
		carry := 0
		for i := range order {
			sum := int(sig[32+i]) + int(order[i]) + carry
			sig[32+i], carry = byte(sum), sum>>8
		}
		if carry != 0 {
			break
		}
		if same(t, ks, "S+nℓ", pub, m, sig) {
			t.Errorf("S = %x is accepted", sig[32:])
		}
	}
	for _, s := range [][]byte{order, bytes.Repeat([]byte{0xff}, 32), append(make([]byte, 31), 0x80), append(make([]byte, 31), 0x20), make([]byte, 32)} {
		if same(t, ks, "S", pub, m, slices.Concat(sig[:32], s)) {
			t.Errorf("S = %x is accepted", s)
		}
	}
}

// Keys that are no point, and other spellings of points that are no key's.
func TestNoKey(t *testing.T) {
	_, priv, _ := newKey(t)
	sig := ed25519.Sign(priv, nil)
	points := 0
	for i := range 200 {
		pub := make([]byte, 32)
		rand.Read(pub)
		if i < 40 { // beyond p
			copy(pub, bytes.Repeat([]byte{0xff}, 32))
			pub[0], pub[31] = 0xec+byte(i/2), 0x7f|byte(i%2)<<7
		}
		if _, err := new(edwards25519.Point).SetBytes(pub); err == nil {
			points++
		}
		same(t, keys(t, pub), "no key", pub, nil, sig)
	}
	if points == 0 || points == 200 {
		t.Errorf("%d of 200 keys are points, want some and not all", points)
	}
}

// Products of the tables are those of the library, whatever the digits.
func TestProducts(t *testing.T) {
	var ks []*edwards25519.Scalar
	for i := range 253 { // 2^i, 2^i - 1, ℓ - 2^i
		b := make([]byte, 32)
		b[i/8] = 1 << (i % 8)
		p, err := new(edwards25519.Scalar).SetCanonicalBytes(b)
		if err != nil {
			t.Fatal(err)
		}
		ks = append(ks, p, new(edwards25519.Scalar).Subtract(p, scalar(1)), new(edwards25519.Scalar).Negate(p))
	}
	for c := range 256 { // equal digits
		b := bytes.Repeat([]byte{byte(c)}, 32)
		b[31] &= 0x0f
		p, err := new(edwards25519.Scalar).SetCanonicalBytes(b)
		if err != nil {
			t.Fatal(err)
		}
		ks = append(ks, p)
	}
	P := new(edwards25519.Point).ScalarBaseMult(hram([]byte("P"), nil, nil))
	P.Add(P, smallOrder(t)[3])
	for width := 2; width <= 8; width++ {
		table := newTable(P, width)
		for _, k := range ks {
			want := new(edwards25519.Point).ScalarMult(k, P).Bytes()
			r := identity()
			table.addTo(&r, k)
			if got := encode([]point{r})[0]; !bytes.Equal(got, want) {
				t.Fatalf("width %d: [%x]P is %x, want %x", width, k.Bytes(), got, want)
			}
		}
	}
}

// Tables are made while others verify.
func TestConcurrent(t *testing.T) {
	pub, priv, _ := newKey(t)
	k, m := New(pub), []byte("m")
	sig := ed25519.Sign(priv, m)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			k.Expect(few << i)
			for range few {
				if !k.Verify(m, sig) || k.Verify(nil, sig) {
					t.Error("a wrong answer")
				}
			}
		})
	}
	wg.Wait()
	if k.tables.Load() == nil {
		t.Error("no table was made")
	}
}

// A key that is asked often makes its tables unasked.
func TestOftenAsked(t *testing.T) {
	pub, priv, _ := newKey(t)
	k, m := New(pub), []byte("m")
	sig := ed25519.Sign(priv, m)
	for i := range many {
		have := 0
		if tables := k.tables.Load(); tables != nil {
			have = tables.minusA.width
		}
		if want := map[bool]int{true: narrow}[i >= few]; have != want {
			t.Fatalf("after %d signatures the tables have width %d, want %d", i, have, want)
		}
		if !k.Verify(m, sig) {
			t.Fatalf("signature %d is refused", i)
		}
	}
	if w := k.tables.Load().minusA.width; w != wide {
		t.Errorf("after %d signatures the tables have width %d, want %d", many, w, wide)
	}
}

func FuzzVerify(f *testing.F) {
	_, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(priv.Seed(), []byte("message"), make([]byte, 64), false)
	f.Add(priv.Seed(), []byte{}, []byte{0: 1, 32: 1, 63: 0}, false)
	f.Add(append([]byte{1}, make([]byte, 31)...), []byte{}, append([]byte{1}, make([]byte, 63)...), true)
	f.Fuzz(func(t *testing.T, key, message, change []byte, public bool) {
		if len(key) != 32 {
			return
		}
		if public { // key and signature as they come
			same(t, keys(t, key)[:2], "fuzzed", key, message, change)
			return
		}
		priv := ed25519.NewKeyFromSeed(key)
		pub := priv.Public().(ed25519.PublicKey)
		sig := ed25519.Sign(priv, message)
		for i, c := range change {
			if i < len(sig) {
				sig[i] ^= c
			}
		}
		same(t, keys(t, pub)[:2], "fuzzed", pub, message, sig)
	})
}
