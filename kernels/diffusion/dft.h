// Discrete Fourier transforms of 1 to 64 numbers in registers, X[m] = sum over n of x[n] exp(-2 pi i m n / N).
//
// Composite sizes by Cooley and Tukey (1965), odd primes by their (p - 1) / 2 pairs. Results are handed to
// `emit(m, X[m])` one by one, so that a large prime needs no second set of registers. The input is destroyed.
// All constants are the compiler's, but for the roots of large primes, whose loop over m stays a loop.
#pragma once
#include "device.h"

template <int i> struct Index { static constexpr int value = i; };
// step(Index<first>{}), ..., step(Index<last - 1>{})
template <int first, int last, class Step> DEVICE void each(Step step) {
  if constexpr (first < last) {
    step(Index<first>{});
    each<first + 1, last>(step);
  }
}

// Cosine of 2 pi k / n by its series, for the compiler.
DEVICE constexpr double cosine(int k, int n) {
  k = (k % n + n) % n;
  if (2 * k > n) k = n - k;
  bool mirrored = 4 * k > n;  // cos(pi - x) = -cos x
  double x = 6.283185307179586476925 * (mirrored ? 0.5 * n - k : k) / n, term = 1, sum = 1;
  for (int i = 1; i < 14; i++) sum += term *= -x * x / ((2 * i - 1) * (2 * i));
  return mirrored ? -sum : sum;
}
DEVICE constexpr double sine(int k, int n) { return cosine(4 * k - n, 4 * n); }
template <int n, int k> constexpr float COSINE = float(cosine(k, n));
template <int n, int k> constexpr float SINE = float(sine(k, n));

DEVICE constexpr int smallest_factor(int n) {
  for (int p = 2; p * p <= n; p++)
    if (n % p == 0) return p;
  return n;
}

DEVICE float2 add(float2 a, float2 b) { return make_float2(a.x + b.x, a.y + b.y); }
DEVICE float2 subtract(float2 a, float2 b) { return make_float2(a.x - b.x, a.y - b.y); }
DEVICE float2 times(float2 a, float2 b) { return make_float2(a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x); }
// i times the conjugate. A transform of swapped numbers gives the swapped inverse transform, times n.
DEVICE float2 swapped(float2 z) { return make_float2(z.y, z.x); }

// z exp(-2 pi i k / n); turns by eighths take no general product.
template <int n, int k> DEVICE float2 turned(float2 z) {
  constexpr float r = COSINE<8, 1>;
  constexpr int eighth = 8 * (k % n) % n ? -1 : 8 * (k % n) / n;
  if constexpr (eighth == 0) return z;
  else if constexpr (eighth == 1) return make_float2(r * (z.x + z.y), r * (z.y - z.x));
  else if constexpr (eighth == 2) return make_float2(z.y, -z.x);
  else if constexpr (eighth == 3) return make_float2(r * (z.y - z.x), -r * (z.x + z.y));
  else if constexpr (eighth == 4) return make_float2(-z.x, -z.y);
  else if constexpr (eighth == 5) return make_float2(-r * (z.x + z.y), r * (z.x - z.y));
  else if constexpr (eighth == 6) return make_float2(-z.y, z.x);
  else if constexpr (eighth == 7) return make_float2(r * (z.x - z.y), r * (z.x + z.y));
  else return times(z, make_float2(COSINE<n, k>, -SINE<n, k>));
}

template <int n, class Emit> DEVICE void dft(float2* x, Emit emit);

// x[q], x[p - q] become their sum s and difference d.
template <int p> DEVICE void pair_up(float2* x) {
#pragma unroll
  for (int q = 1; q <= (p - 1) / 2; q++) {
    float2 s = add(x[q], x[p - q]);
    x[p - q] = subtract(x[q], x[p - q]);
    x[q] = s;
  }
}
template <int p> DEVICE float2 total(const float2* x) {
  float2 sum = x[0];
#pragma unroll
  for (int q = 1; q <= (p - 1) / 2; q++) sum = add(sum, x[q]);
  return sum;
}

// p odd: with s = x[q] + x[p - q] and d = x[q] - x[p - q],
// X[m], X[p - m] = x[0] + sum of s cos -+ i sum of d sin, over q = 1..(p - 1) / 2, angles 2 pi q m / p.
template <int p, class Emit> DEVICE void dft_odd_prime(float2* x, Emit emit) {
  constexpr int half = (p - 1) / 2;
  pair_up<p>(x);
  emit(0, total<p>(x));
  each<1, half + 1>([&](auto of) {
    constexpr int m = decltype(of)::value;
    float2 even = x[0], odd = make_float2(0.f, 0.f);
    each<1, half + 1>([&](auto at) {
      constexpr int q = decltype(at)::value;
      constexpr float c = COSINE<p, q * m % p>, s = SINE<p, q * m % p>;
      even.x += c * x[q].x;
      even.y += c * x[q].y;
      odd.x += s * x[p - q].x;
      odd.y += s * x[p - q].y;
    });
    emit(m, make_float2(even.x + odd.y, even.y - odd.x));
    emit(p - m, make_float2(even.x - odd.y, even.y + odd.x));
  });
}

// The same with exp(-2 pi i k / p) = roots[k step].
template <int p, class Emit> DEVICE void dft_large_prime(float2* x, const float2* roots, int step, Emit emit) {
  pair_up<p>(x);
  emit(0, total<p>(x));
#pragma unroll 1
  for (int m = 1; m <= (p - 1) / 2; m++) {
    float2 even = x[0], odd = make_float2(0.f, 0.f);
    int k = 0;
#pragma unroll
    for (int q = 1; q <= (p - 1) / 2; q++) {
      k += m;
      if (k >= p) k -= p;
      float2 root = roots[k * step];
      even.x += root.x * x[q].x;
      even.y += root.x * x[q].y;
      odd.x -= root.y * x[p - q].x;
      odd.y -= root.y * x[p - q].y;
    }
    emit(m, make_float2(even.x + odd.y, even.y - odd.x));
    emit(p - m, make_float2(even.x - odd.y, even.y + odd.x));
  }
}

// n = a b: a-point transforms over x[b i + j], i = 0..a - 1, turned by m j / n; then b-point ones over j.
template <int n, class Emit> DEVICE void dft(float2* x, Emit emit) {
  constexpr int a = smallest_factor(n), b = n / a;
  if constexpr (n == 1) {
    emit(0, x[0]);
  } else if constexpr (n == 2) {
    emit(0, add(x[0], x[1]));
    emit(1, subtract(x[0], x[1]));
  } else if constexpr (b == 1) {
    dft_odd_prime<n>(x, emit);
  } else {
    each<0, b>([&](auto column) {
      constexpr int j = decltype(column)::value;
      float2 part[a];
      each<0, a>([&](auto row) { part[decltype(row)::value] = x[b * decltype(row)::value + j]; });
      dft<a>(part, [&](int m, float2 z) { x[b * m + j] = z; });
      each<1, a>([&](auto row) {
        constexpr int m = decltype(row)::value;
        x[b * m + j] = turned<n, m * j>(x[b * m + j]);
      });
    });
    each<0, a>([&](auto row) {
      constexpr int m = decltype(row)::value;
      dft<b>(x + b * m, [&](int k, float2 z) { emit(m + a * k, z); });
    });
  }
}
