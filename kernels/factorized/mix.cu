// Channels mixed by a matrix of which only connected blocks are computed.
//
//   BY STENCIL  Y[f](p) = sum over c of P[f, c] S[c](p) + X[f](p),   S[c](p) = sum over t of D[t, c] X[c](p + t)
//   BY TAPS     Y[f](p) = sum over c, t of P[t, f, c] X[c](p + t)
//   BY ALONE    Y[c](p) = S[c](p) + R[c](p)
//
// A block makes BLOCK features of one tile. It walks the chunks of input channels that its features are
// connected with (and their taps): while one is worked on, the tile and the weights of the next are
// copied. By STENCIL S never leaves shared memory: it is the left operand of the product, and the residual
// comes from the tile of X. An entry of the table is a chunk and a mask: bit (band FRAGMENTS + fragment)
// says that the 16 features and the FRAGMENT channels are connected; the others cost nothing.
#define STENCIL 0
#define TAPS 1
#define ALONE 2
#include "mix_stencil.h"

struct Entry { int chunk, mask; };

// Where the features of a band lie: slot 8 j + n of its weights is feature 4 (n / 2) + 2 j + n % 2 (the
// launcher orders them so), and lane l then owns features 4 (l % 4) .. + 3 of its pixels.
struct Sums { float of[2][BANDS][2][4]; };

// s: the left operand at this warp's first pixel; its two rows lie `row_bytes` apart.
DEVICE void add_products(Sums& sums, const char* s, int row_bytes, const char* w, int mask, int lane) {
#pragma unroll
  for (int k = 0; k < FRAGMENTS; k++) {
    u32 a[2][4];
#pragma unroll
    for (int t = 0; t < 2; t++) load_matrices(a[t], s + t * row_bytes + lane % 16 * PIXEL_BYTES + k * FRAGMENT_BYTES + lane / 16 * 16);
#pragma unroll
    for (int band = 0; band < BANDS; band++) {
      if (!(mask >> (band * FRAGMENTS + k) & 1)) continue;
      u32 b[4];
      load_matrices(b, w + (band * 16 + lane % 8 + lane / 16 * 8) * PIXEL_BYTES + k * FRAGMENT_BYTES + lane / 8 % 2 * 16);
#pragma unroll
      for (int t = 0; t < 2; t++) {
        multiply(sums.of[t][band][0], a[t], b);
        multiply(sums.of[t][band][1], a[t], b + 2);
      }
    }
  }
}

// Half i of a fragment is pixel lane / 4 + 8 i of a row: its four features as a vector.
DEVICE void add_residual(Sums& sums, const char* x, int from_band, int lane) {
#pragma unroll
  for (int band = 0; band < BANDS; band++) {
    int channel = (band - from_band) * 16 + lane % 4 * 4;
    if (channel < 0 || channel >= CHUNK) continue;
#pragma unroll
    for (int t = 0; t < 2; t++)
#pragma unroll
      for (int i = 0; i < 2; i++) {
        float v[4];
        load_vector<4>(v, (const Element*)(x + (t * X_PITCH + lane / 4 + 8 * i) * PIXEL_BYTES) + channel);
        for (int e = 0; e < 4; e++) sums.of[t][band][e / 2][2 * i + e % 2] += v[e];
      }
  }
}

DEVICE void store_sums(const Sums& sums, Element* y, const Map& map, int row, int left, int feature, int lane) {
#pragma unroll
  for (int t = 0; t < 2; t++)
#pragma unroll
    for (int i = 0; i < 2; i++) {
      int h = row + t, w = left + lane / 4 + 8 * i;
      if (h >= map.height || w >= map.width) continue;
      Element* at = y + ((long long)h * map.row + (long long)w * map.pixel);
#pragma unroll
      for (int band = 0; band < BANDS; band++) {
        int f = feature + band * 16 + lane % 4 * 4;
        const float* c0 = sums.of[t][band][0] + 2 * i;
        const float* c1 = sums.of[t][band][1] + 2 * i;
        float v[4] = {c0[0], c0[1], c1[0], c1[1]};
        if (f < map.channels) store_some<4>(at + f, v, map.channels - f, map.whole);
      }
    }
}

KERNEL(THREADS, BLOCKS)
mix(const Element* __restrict__ x, const float* __restrict__ stencils, const Element* __restrict__ weights, const Element* residual,
    Element* __restrict__ y, const Entry* __restrict__ table, int entries, int feature_blocks, int with_residual, int x_whole, int y_whole,
    int height, int width, int channels, int features, int padded_channels, int padded_features) {
  SHARED_MEMORY(memory);
  int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  int across = (width + TILE_COLUMNS - 1) / TILE_COLUMNS, down = (height + TILE_ROWS - 1) / TILE_ROWS;
  int feature_block = blockIdx.x % feature_blocks, tile = blockIdx.x / feature_blocks;  // blocks of a tile run together: X from L2
  int left = tile % across * TILE_COLUMNS, top = tile / across % down * TILE_ROWS;
  long long pixels = (long long)(tile / across / down) * height * width;
  Map from = {height, width, channels, width * channels, channels, x_whole != 0};
  Map to = {height, width, features, width * features, features, y_whole != 0};
  x += pixels * channels;
  y += pixels * features;
  int feature0 = feature_block * BLOCK;

  constexpr int STEPS_A_CHUNK = BY == TAPS ? SPAN * SPAN : 1;
  const Entry* entry = table + feature_block * (entries + 1);
  int steps = entry[0].chunk * STEPS_A_CHUNK;  // the first entry counts the others
  entry++;
  auto stage = [&](int number) { return memory + number % 2 * STAGE_BYTES; };
  char* kept = memory + 2 * STAGE_BYTES;  // S

  auto load = [&](int step) {
    int number = step / STEPS_A_CHUNK, tap = step % STEPS_A_CHUNK, channel = entry[number].chunk * CHUNK;
    if (tap == 0) {
      load_padded<HIGH, BROAD, X_PITCH, SEGMENTS, PIXEL_BYTES, THREADS>(stage(number), x, from, top - HALO, left - HALO, channel);
      if constexpr (BY != TAPS)
        for (int i = threadIdx.x; i < SPAN * SPAN * CHUNK / 4; i += THREADS)
          copy_async_16(stage(number) + X_BYTES + W_BYTES + i * 16, stencils + i / (CHUNK / 4) * padded_channels + channel + i % (CHUNK / 4) * 4, true);
    }
    if constexpr (BY != ALONE)
      for (int i = threadIdx.x; i < BLOCK * SEGMENTS; i += THREADS) {
        long long row = (long long)tap * padded_features + feature0 + i / SEGMENTS;
        copy_async_16(stage(step) + X_BYTES + i / SEGMENTS * PIXEL_BYTES + i % SEGMENTS * 16, weights + row * padded_channels + channel + i % SEGMENTS * SEGMENT, true);
      }
  };

  Sums sums = {};
  int wide = warp % WARPS_WIDE, row = warp / WARPS_WIDE * 2;
  load(0);
  copy_commit();
  for (int step = 0; step < steps; step++) {
    if (step + 1 < steps) load(step + 1);
    copy_commit();
    copy_wait<1>();  // the copies of this step
    __syncthreads();  // everyone's copies
    int number = step / STEPS_A_CHUNK, tap = step % STEPS_A_CHUNK, mask = entry[number].mask >> (wide * BANDS * FRAGMENTS);
    const char* tile_x = stage(number);
    const char* w = stage(step) + X_BYTES + wide * WIDE * PIXEL_BYTES;
    if constexpr (BY == TAPS) {
      const char* s = tile_x + ((row + tap / SPAN) * X_PITCH + tap % SPAN) * PIXEL_BYTES;
      add_products(sums, s, X_PITCH * PIXEL_BYTES, w, mask, lane);
    } else {
      const float* d = (const float*)(tile_x + X_BYTES + W_BYTES);
#pragma unroll 1
      for (int turn = 0; turn < TURNS; turn++) {
        Strip strip = stencil(tile_x, d, turn);
        if constexpr (BY == ALONE) finish(strip, y, residual ? residual + pixels * features : residual, to, top, left, feature0);
        else keep(strip, kept);
      }
      if constexpr (BY == STENCIL) {
        __syncthreads();  // all of S
        add_products(sums, kept + row * S_PITCH * PIXEL_BYTES, S_PITCH * PIXEL_BYTES, w, mask, lane);
        int from_band = (entry[number].chunk * CHUNK - feature0 - wide * WIDE) / 16;
        if (with_residual) add_residual(sums, tile_x + ((row + HALO) * X_PITCH + HALO) * PIXEL_BYTES, from_band, lane);
      }
    }
    __syncthreads();  // read by everyone before the copies after the next overwrite it
  }
  if constexpr (BY != ALONE) store_sums(sums, y, to, top + row, left, feature0 + wide * WIDE, lane);
}
