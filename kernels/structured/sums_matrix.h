// Sums of 16-bit maps on tensor cores, exact products with 0, 1 and -1, in fp32, rounded once.
//
// A product has 16 places as rows and 8 sums as columns. Its left operand holds the 8 channels e that enter
// and the 8 channels l that leave while the window slides over those sums; with W the sum before them,
//
//   s_n = W + sum over k <= n of t_(e+k) - sum over k < n of t_(l+k),   then W += all t_(e+k) - all t_(l+k):
//
// two products for each of the SIDE^2 pixels under the place, whose operand is one ldmatrix.
#pragma once

constexpr int WARPS = THREADS / 32;
constexpr int PLACES = ((SUM_PIXELS + 15) / 16 + WARPS - 1) / WARPS;  // products of a warp
constexpr u32 ONE = PRECISION == BF16 ? 0x3f80 : 0x3c00, MINUS = 0x8000;

// Of the places lane / 4 and lane / 4 + 8 of each product; all columns of W are equal.
struct Windows { float sum[PLACES][2]; };

DEVICE void clear(Windows& windows) {
#pragma unroll
  for (int i = 0; i < PLACES * 2; i++) windows.sum[i / 2][i % 2] = 0.f;
}

DEVICE void multiply_ones(float* c, const u32* a, u32 first, u32 second) {
  u32 b[2] = {first, second};
  multiply(c, a, b);
}

// The row of the sums that this lane addresses in product p of its warp; the last one may repeat.
DEVICE int addressed_row(int thread, int p) {
  int row = (thread / 32 + p * WARPS) * 16 + thread % 16;
  return row < SUM_PIXELS ? row : SUM_PIXELS - 1;
}
DEVICE bool has_product(int thread, int p) { return (thread / 32 + p * WARPS) * 16 < SUM_PIXELS; }

DEVICE void fill_windows(Windows& windows, const char* entering, int segments) {
  int thread = this_thread(), second = thread / 16 % 2;  // the half of a warp that addresses the second segment
#pragma unroll
  for (int p = 0; p < PLACES; p++) {
    if (!has_product(thread, p)) break;
    int row = addressed_row(thread, p), y = row / SUM_W, x = row % SUM_W;
    float w[4] = {windows.sum[p][0], windows.sum[p][0], windows.sum[p][1], windows.sum[p][1]};
#pragma unroll 1
    for (int segment = 0; segment < segments; segment += 2) {
      bool pair = segment + 1 < segments;
#pragma unroll ROWS_AT_ONCE
      for (int dy = 0; dy < SIDE; dy++)
#pragma unroll
        for (int dx = 0; dx < SIDE; dx++) {
          u32 a[4];
          load_matrices(a, entering + place_in_chunks((y + dy) * RAW_W + x + dx, segment + (pair ? second : 0)));
          multiply_ones(w, a, ONE << 16 | ONE, pair ? ONE << 16 | ONE : 0);
        }
    }
    windows.sum[p][0] = w[0], windows.sum[p][1] = w[2];
  }
}

// Each sum, times `scale`, into `sums`: `segments` of them, zeros in the rest of the chunk.
// enter, leave: the first segments that enter and leave. deep: depth > 1, otherwise nothing leaves.
DEVICE void slide_windows(Windows& windows, const char* entering, int enter, const char* leaving, int leave, char* sums,
                          int segments, bool deep, float scale) {
  int thread = this_thread(), lane = thread % 32, n = lane / 4, k = lane % 4 * 2;  // this lane holds words (k, n) and (k + 1, n)
  u32 entered = deep ? (k <= n ? ONE : 0) | (k + 1 <= n ? ONE << 16 : 0) : (k == n ? ONE : 0) | (k + 1 == n ? ONE << 16 : 0);
  u32 left = deep ? (k < n ? ONE | MINUS : 0) | (k + 1 < n ? (ONE | MINUS) << 16 : 0) : 0;
  bool second = deep && lane >= 16;  // the half of the warp that addresses what leaves
  const char* raw = second ? leaving : entering;
  int first = second ? leave : enter;
#pragma unroll
  for (int p = 0; p < PLACES; p++) {
    if (!has_product(thread, p)) break;
    int row = addressed_row(thread, p), y = row / SUM_W, x = row % SUM_W;
    float w[4] = {windows.sum[p][0], windows.sum[p][0], windows.sum[p][1], windows.sum[p][1]};
    int stored = (thread / 32 + p * WARPS) * 16 + lane / 4;
#pragma unroll 1
    for (int segment = 0; segment < SEGMENTS; segment++) {
      float s[4] = {0.f, 0.f, 0.f, 0.f};
      if (segment < segments) {
#pragma unroll
        for (int i = 0; i < 4; i++) s[i] = w[i];
#pragma unroll ROWS_AT_ONCE
        for (int dy = 0; dy < SIDE; dy++)
#pragma unroll
          for (int dx = 0; dx < SIDE; dx++) {
            u32 a[4];
            load_matrices(a, raw + place_in_chunks((y + dy) * RAW_W + x + dx, first + segment));
            multiply_ones(s, a, entered, left);
            if (deep) multiply_ones(w, a, ONE << 16 | ONE, (ONE | MINUS) << 16 | ONE | MINUS);
          }
      }
#pragma unroll
      for (int half = 0; half < 2; half++)
        if (stored + 8 * half < SUM_PIXELS)
          store_pair((Element*)(sums + place(stored + 8 * half, segment) + k * 2), s[2 * half] * scale, s[2 * half + 1] * scale);
    }
    windows.sum[p][0] = w[0], windows.sum[p][1] = w[2];
  }
}
