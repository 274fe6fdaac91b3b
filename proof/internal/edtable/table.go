package edtable

import (
	"filippo.io/edwards25519"
	"filippo.io/edwards25519/field"
)

// table holds multiples of a point P: rows[i][j-1] is [j·2^(width·i)]P. A row
// has half as many as a digit has values, since digits may be negative.
type table struct {
	width int
	rows  [][]affine
}

// scalarBits is the length of a reduced scalar.
const scalarBits = 253

func newTable(p *edwards25519.Point, width int) *table {
	n, half := scalarBits/width+1, 1<<(width-1)
	firsts := make([]point, n)
	for i, at := 0, new(edwards25519.Point).Set(p); i < n; i++ {
		firsts[i].set(at)
		for range width {
			at.Add(at, at)
		}
	}
	t := &table{width: width}
	all := make([]point, 0, n*half)
	for _, first := range flatten(firsts) {
		p := identity()
		for range half {
			p.add(&first)
			all = append(all, p)
		}
	}
	flat := flatten(all)
	for i := range n {
		t.rows = append(t.rows, flat[i*half:(i+1)*half])
	}
	return t
}

// addTo adds [k]P to sum.
func (t *table) addTo(sum *point, k *edwards25519.Scalar) {
	var b [32 + 1]byte
	copy(b[:], k.Bytes())
	carry := 0
	for i, row := range t.rows {
		bit := i * t.width
		digit := (int(b[bit/8])|int(b[bit/8+1])<<8)>>(bit%8)&(1<<t.width-1) + carry
		if carry = 0; digit > len(row) {
			digit -= 1 << t.width
			carry = 1
		}
		switch {
		case digit > 0:
			sum.add(&row[digit-1])
		case digit < 0:
			sum.sub(&row[-digit-1])
		}
	}
}

// point is (x/z, y/z) with t = xy/z.
type point struct{ x, y, z, t field.Element }

// affine is (x, y) as an addition takes it: y+x, y−x and 2dxy.
type affine struct{ sum, diff, prod field.Element }

// d2 is 2d, d = −121665/121666.
var d2 = func() field.Element {
	var d, one field.Element
	one.One()
	d.Invert(d.Mult32(&one, 121666))
	d.Mult32(&d, 2*121665)
	return *d.Negate(&d)
}()

func identity() (p point) {
	p.y.One()
	p.z.One()
	return p
}

func (p *point) set(q *edwards25519.Point) {
	x, y, z, t := q.ExtendedCoordinates()
	p.x, p.y, p.z, p.t = *x, *y, *z, *t
}

// add adds q by the formula madd-2008-hwcd-3 (Hisil, Wong, Carter, Dawson),
// which holds for any two points of the curve.
func (p *point) add(q *affine) {
	var c field.Element
	p.combine(&q.sum, &q.diff, c.Multiply(&p.t, &q.prod))
}

// sub adds −q, which is (−x, y).
func (p *point) sub(q *affine) {
	var c field.Element
	c.Multiply(&p.t, &q.prod)
	p.combine(&q.diff, &q.sum, c.Negate(&c))
}

func (p *point) combine(sum, diff, c *field.Element) {
	var a, b, d, e, f, g, h field.Element
	a.Multiply(a.Subtract(&p.y, &p.x), diff)
	b.Multiply(b.Add(&p.y, &p.x), sum)
	d.Add(&p.z, &p.z)
	e.Subtract(&b, &a)
	f.Subtract(&d, c)
	g.Add(&d, c)
	h.Add(&b, &a)
	p.x.Multiply(&e, &f)
	p.y.Multiply(&g, &h)
	p.z.Multiply(&f, &g)
	p.t.Multiply(&e, &h)
}

// flatten brings points to z = 1.
func flatten(ps []point) []affine {
	out := make([]affine, len(ps))
	for i, z := range inverses(ps) {
		var x, y field.Element
		x.Multiply(&ps[i].x, &z)
		y.Multiply(&ps[i].y, &z)
		out[i].sum.Add(&y, &x)
		out[i].diff.Subtract(&y, &x)
		out[i].prod.Multiply(x.Multiply(&x, &y), &d2)
	}
	return out
}

// encode gives the encodings of RFC 8032.
func encode(ps []point) [][]byte {
	out := make([][]byte, len(ps))
	for i, z := range inverses(ps) {
		var x, y field.Element
		x.Multiply(&ps[i].x, &z)
		out[i] = y.Multiply(&ps[i].y, &z).Bytes()
		out[i][31] |= byte(x.IsNegative() << 7)
	}
	return out
}

// inverses gives 1/z of each point for one inversion: the product of all is
// inverted, and taken apart from behind. No z is 0.
func inverses(ps []point) []field.Element {
	out := make([]field.Element, len(ps))
	var all field.Element
	all.One()
	for i := range ps {
		out[i] = all // the product of those before
		all.Multiply(&all, &ps[i].z)
	}
	all.Invert(&all)
	for i := len(ps) - 1; i >= 0; i-- {
		out[i].Multiply(&out[i], &all)
		all.Multiply(&all, &ps[i].z)
	}
	return out
}
