// One implicit reaction-diffusion step, periodic: out = (I + step K'K)^-1 (y + step reaction), as
// F^-1 (symbol F (y + step reaction)) with the two-dimensional transform of a map in shared memory.
//
// A block holds 2 PAIRS channels of one image. Two channels make one complex map z = a + i b, since
// both symbols are real: with A, B the spectra, A = (Z[k] + conj Z[-k]) / 2, i B = (Z[k] - conj Z[-k]) / 2, so
//
//   Z'[k] = (s_a + s_b) / 2  Z[k] + (s_a - s_b) / 2  conj Z[-k].
//
// A line of n = FIRST SECOND numbers is transformed in place in one or two passes (Gentleman and Sande, 1966):
//   first:   over n = j + SECOND q, q = 0..FIRST - 1, times exp(-2 pi i j m / n), left at j + SECOND m;
//   second:  over n = SECOND b + q, q = 0..SECOND - 1; frequency b + FIRST m is left at SECOND b + m.
// The way back undoes the passes in reverse order, on swapped numbers, so that nothing is reordered.
//
//   load, columns first | columns second | rows first | rows second, product, back | ... | columns first, store
//
// Rows lie an odd number of pixels apart: lanes on neighbouring rows or columns meet different banks.
// The backward pass is the same without reaction; it also writes `scaled` = step out.
#include "dft.h"
#include "pair.h"

DEVICE constexpr int largest_factor(int n, int most) {
  while (n % most) most--;
  return most;
}
constexpr int IN_ONE_PASS = 16;
constexpr int COLUMN_SECOND = HEIGHT <= IN_ONE_PASS ? 1 : largest_factor(HEIGHT, 8);
constexpr int COLUMN_FIRST = HEIGHT / COLUMN_SECOND;
constexpr int ROW_SECOND = WIDTH <= IN_ONE_PASS ? WIDTH : largest_factor(WIDTH, 8);
constexpr int ROW_FIRST = WIDTH / ROW_SECOND;
constexpr int ROW_STEP = (WIDTH | 1) * PAIRS;  // from a row to the next in shared memory
constexpr int PIXEL_STEP = PAIRS;

// A line's first pass: exp(-2 pi i k / n) = roots[k second].
template <int n, int second, class Emit> DEVICE void dft_first(float2* x, const float2* roots, Emit emit) {
  if constexpr (n > IN_ONE_PASS) dft_large_prime<n>(x, roots, second, emit);
  else dft<n>(x, emit);
}

// Transform n numbers that lie `step` apart, in place.
template <int n> DEVICE void transform(float2* x, int step) {
  float2 v[n];
  each<0, n>([&](auto at) { v[decltype(at)::value] = x[decltype(at)::value * step]; });
  dft<n>(v, [&](int m, float2 z) { x[m * step] = z; });
}

// Columns, second pass: the same forward and back.
DEVICE void columns_second(float2* map) {
  for (int i = threadIdx.x; i < PAIRS * WIDTH * COLUMN_FIRST; i += THREADS)
    transform<COLUMN_SECOND>(map + i / (PAIRS * WIDTH) * COLUMN_SECOND * ROW_STEP + i % (PAIRS * WIDTH), ROW_STEP);
}

// Rows, first pass, forward or back. Lanes: pairs, then rows.
template <bool back> DEVICE void rows_first(float2* map, const float2* roots) {
  for (int i = threadIdx.x; i < PAIRS * HEIGHT * ROW_SECOND; i += THREADS) {
    int j = i / (PAIRS * HEIGHT);
    float2* x = map + i / PAIRS % HEIGHT * ROW_STEP + j * PIXEL_STEP + i % PAIRS;
    float2 v[ROW_FIRST];
    each<0, ROW_FIRST>([&](auto at) {
      constexpr int m = decltype(at)::value;
      v[m] = x[m * ROW_SECOND * PIXEL_STEP];
      if (back && m > 0) v[m] = times(v[m], roots[j * m]);
    });
    dft_first<ROW_FIRST, ROW_SECOND>(v, roots, [&](int m, float2 z) {
      x[m * ROW_SECOND * PIXEL_STEP] = back || m == 0 ? z : times(z, roots[j * m]);
    });
  }
}

// The product at frequencies b + ROW_FIRST m of a row, m = 0..ROW_SECOND - 1, and at the opposite ones.
template <bool from_zero> DEVICE void multiply(float2* here, float2* there, const float2* symbols) {
  each<0, ROW_SECOND>([&](auto at) {
    constexpr int m = decltype(at)::value;
    constexpr int opposite = from_zero ? (ROW_SECOND - m) % ROW_SECOND : ROW_SECOND - 1 - m;
    float same = 0.5f * (symbols[m].x + symbols[m].y), other = 0.5f * (symbols[m].x - symbols[m].y);
    float2 a = here[m], b = there[opposite];
    here[m] = swapped(make_float2(same * a.x + other * b.x, same * a.y - other * b.y));
    there[opposite] = swapped(make_float2(same * b.x + other * a.x, same * b.y - other * a.y));
  });
}

// Rows, second pass forward, product, second pass back. A thread takes a stretch of a row and that with
// the opposite frequencies; where both are one, it does the same twice.
DEVICE void rows_second(float2* map, const float* symbol, int first, int padded) {
  constexpr int LINES = (COLUMN_FIRST / 2 + 1) * COLUMN_SECOND;  // these or their opposites are all
  for (int i = threadIdx.x; i < PAIRS * LINES * ROW_FIRST; i += THREADS) {
    int pair = i % PAIRS, line = i / PAIRS % LINES, b = i / (PAIRS * LINES);
    int row = line / COLUMN_SECOND + COLUMN_FIRST * (line % COLUMN_SECOND);  // the frequency left there
    int opposite_row = (HEIGHT - row) % HEIGHT;
    int opposite_line = opposite_row % COLUMN_FIRST * COLUMN_SECOND + opposite_row / COLUMN_FIRST;
    int opposite_b = (ROW_FIRST - b) % ROW_FIRST;
    if (opposite_line < line || (opposite_line == line && opposite_b < b)) continue;

    float2 symbols[ROW_SECOND];
    bool inside = first + 2 * pair < padded;
    each<0, ROW_SECOND>([&](auto at) {
      constexpr int m = decltype(at)::value;
      const float* place = symbol + (row * WIDTH + b + ROW_FIRST * m) * padded + first + 2 * pair;
      symbols[m] = inside ? *(const float2*)place : make_float2(0.f, 0.f);
    });
    float2* here = map + line * ROW_STEP + b * ROW_SECOND * PIXEL_STEP + pair;
    float2* there = map + opposite_line * ROW_STEP + opposite_b * ROW_SECOND * PIXEL_STEP + pair;
    float2 v[ROW_SECOND], spectrum[ROW_SECOND], opposite[ROW_SECOND];
    each<0, ROW_SECOND>([&](auto at) { v[decltype(at)::value] = here[decltype(at)::value * PIXEL_STEP]; });
    dft<ROW_SECOND>(v, [&](int m, float2 z) { spectrum[m] = z; });
    each<0, ROW_SECOND>([&](auto at) { v[decltype(at)::value] = there[decltype(at)::value * PIXEL_STEP]; });
    dft<ROW_SECOND>(v, [&](int m, float2 z) { opposite[m] = z; });
    if (b == 0) multiply<true>(spectrum, opposite, symbols);
    else multiply<false>(spectrum, opposite, symbols);
    dft<ROW_SECOND>(spectrum, [&](int m, float2 z) { here[m * PIXEL_STEP] = z; });
    dft<ROW_SECOND>(opposite, [&](int m, float2 z) { there[m * PIXEL_STEP] = z; });
  }
}

KERNEL(THREADS, BLOCKS)
solve(const Element* __restrict__ y, const Element* __restrict__ reaction, const float* __restrict__ symbol,
      const float2* __restrict__ row_roots, const float2* __restrict__ column_roots, Element* __restrict__ out,
      Element* __restrict__ scaled, float step, int channels) {
  SHARED_MEMORY(memory);
  float2* map = (float2*)memory;  // [HEIGHT][WIDTH | 1][PAIRS]
  int groups = (channels + 2 * PAIRS - 1) / (2 * PAIRS), first = blockIdx.x % groups * 2 * PAIRS;
  u64 image = (u64)(blockIdx.x / groups) * (HEIGHT * WIDTH * channels);  // offsets in an image: 32 bits
  y += image, out += image;

  for (int i = threadIdx.x; i < PAIRS * WIDTH * COLUMN_SECOND; i += THREADS) {
    int pair = i % PAIRS, column = i / PAIRS % WIDTH, j = i / (PAIRS * WIDTH);
    int exist = channels - first - 2 * pair, next = COLUMN_SECOND * WIDTH * channels;
    int from = (j * WIDTH + column) * channels + first + 2 * pair;
    float2 v[COLUMN_FIRST];
    each<0, COLUMN_FIRST>([&](auto at) {
      constexpr int q = decltype(at)::value;
      float own[2];
      unpack(own, fetch(y + from + q * next, exist));
      v[q] = make_float2(own[0], own[1]);
    });
    if (reaction)
      each<0, COLUMN_FIRST>([&](auto at) {
        constexpr int q = decltype(at)::value;
        float source[2];
        unpack(source, fetch(reaction + image + from + q * next, exist));
        v[q] = make_float2(v[q].x + step * source[0], v[q].y + step * source[1]);
      });
    float2* x = map + j * ROW_STEP + column * PIXEL_STEP + pair;
    dft_first<COLUMN_FIRST, COLUMN_SECOND>(v, row_roots, [&](int m, float2 z) {
      x[m * COLUMN_SECOND * ROW_STEP] = COLUMN_SECOND == 1 || m == 0 ? z : times(z, row_roots[j * m]);
    });
  }
  __syncthreads();  // columns, first pass
  if (COLUMN_SECOND > 1) {
    columns_second(map);
    __syncthreads();  // columns, second pass
  }
  if (ROW_FIRST > 1) {
    rows_first<false>(map, column_roots);
    __syncthreads();  // rows, first pass
  }
  rows_second(map, symbol, first, channels + channels % 2);
  __syncthreads();  // rows, second pass and back
  if (ROW_FIRST > 1) {
    rows_first<true>(map, column_roots);
    __syncthreads();  // rows, first pass back
  }
  if (COLUMN_SECOND > 1) {
    columns_second(map);
    __syncthreads();  // columns, second pass back
  }
  for (int i = threadIdx.x; i < PAIRS * WIDTH * COLUMN_SECOND; i += THREADS) {
    int pair = i % PAIRS, column = i / PAIRS % WIDTH, j = i / (PAIRS * WIDTH);
    int exist = channels - first - 2 * pair, next = COLUMN_SECOND * WIDTH * channels;
    int to = (j * WIDTH + column) * channels + first + 2 * pair;
    const float2* x = map + j * ROW_STEP + column * PIXEL_STEP + pair;
    float2 v[COLUMN_FIRST];
    each<0, COLUMN_FIRST>([&](auto at) {
      constexpr int m = decltype(at)::value;
      v[m] = x[m * COLUMN_SECOND * ROW_STEP];
      if (COLUMN_SECOND > 1 && m > 0) v[m] = times(v[m], row_roots[j * m]);
    });
    dft_first<COLUMN_FIRST, COLUMN_SECOND>(v, row_roots, [&](int q, float2 z) {
      put(out + to + q * next, z.y, z.x, exist);
      if (scaled) put(scaled + image + to + q * next, step * z.y, step * z.x, exist);
    });
  }
}
