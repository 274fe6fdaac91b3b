package edsign

import (
	"crypto/subtle"
	_ "embed"
	"sync"

	"filippo.io/edwards25519"
	"filippo.io/edwards25519/field"
)

// base.bin holds of each i below rows and each j from 1 to columns the point
// j·256^i·B in affine coordinates, as y+x, y−x and 2dxy of 32 bytes each:
//
//	go test ./internal/edsign -run TestTable -write
//
//go:embed base.bin
var baseBytes string

const rows, columns, element = 32, 8, 32

// cached is a point as an addition takes it.
type cached struct{ plus, minus, t2d field.Element }

var base = sync.OnceValue(func() *[rows][columns]cached {
	t, b := new([rows][columns]cached), []byte(baseBytes)
	for i := range t {
		for j := range t[i] {
			for _, e := range []*field.Element{&t[i][j].plus, &t[i][j].minus, &t[i][j].t2d} {
				if _, err := e.SetBytes(b[:element]); err != nil {
					panic("edsign: " + err.Error()) // only for another length
				}
				b = b[element:]
			}
		}
	}
	return t
})

// baseMult gives s·B, in constant time: with s = Σ dᵢ·16^i, dᵢ from −8 to 8,
// the sum of the odd digits, times 16, and that of the even ones.
func baseMult(s *edwards25519.Scalar) *edwards25519.Point {
	t, d := base(), digits(s)
	p := edwards25519.NewIdentityPoint()
	for _, odd := range []int{1, 0} {
		sum := extend(p)
		for i := range t {
			c := pick(&t[i], d[2*i+odd])
			sum.add(&c)
		}
		p = sum.point()
		for range 4 * odd {
			p.Add(p, p)
		}
	}
	return p
}

// digits are those of s to the base of 16, each from −8 to 8.
func digits(s *edwards25519.Scalar) (d [2 * rows]int8) {
	for i, b := range s.Bytes() {
		d[2*i], d[2*i+1] = int8(b&15), int8(b>>4)
	}
	for i := range len(d) - 1 {
		carry := (d[i] + 8) >> 4
		d[i] -= carry << 4
		d[i+1] += carry
	}
	return d
}

// pick is x times the row's point, −8 ≤ x ≤ 8, in constant time.
func pick(row *[columns]cached, x int8) (c cached) {
	sign := x >> 7
	abs := uint8((x + sign) ^ sign)
	c.plus.One()
	c.minus.One()
	for j := range row {
		is := subtle.ConstantTimeByteEq(abs, uint8(j+1))
		c.plus.Select(&row[j].plus, &c.plus, is)
		c.minus.Select(&row[j].minus, &c.minus, is)
		c.t2d.Select(&row[j].t2d, &c.t2d, is)
	}
	negative := int(sign & 1)
	c.plus.Swap(&c.minus, negative)
	c.t2d.Select(new(field.Element).Negate(&c.t2d), &c.t2d, negative)
	return c
}

// extended is a point (X:Y:Z:T) with x = X/Z, y = Y/Z and xy = T/Z.
type extended struct{ x, y, z, t field.Element }

func extend(p *edwards25519.Point) (e extended) {
	x, y, z, t := p.ExtendedCoordinates()
	return extended{*x, *y, *z, *t}
}

// point checks that e lies on the curve, as every sum does.
func (e *extended) point() *edwards25519.Point {
	p, err := new(edwards25519.Point).SetExtendedCoordinates(&e.x, &e.y, &e.z, &e.t)
	if err != nil {
		panic("edsign: " + err.Error())
	}
	return p
}

// add is the addition of a point with Z = 1 that holds for all points
// (Hisil, Wong, Carter and Dawson 2008, section 3.1, with 2d·t at hand).
func (e *extended) add(c *cached) {
	var a, b, d, f, g, h field.Element
	a.Multiply(g.Subtract(&e.y, &e.x), &c.minus)
	b.Multiply(g.Add(&e.y, &e.x), &c.plus)
	f.Multiply(&e.t, &c.t2d)
	d.Add(&e.z, &e.z)
	h.Add(&b, &a)
	b.Subtract(&b, &a)
	g.Add(&d, &f)
	f.Subtract(&d, &f)
	e.x.Multiply(&b, &f)
	e.y.Multiply(&g, &h)
	e.z.Multiply(&f, &g)
	e.t.Multiply(&b, &h)
}
