// total[j][w] = sum over s of parts[s][j][w], and of its twin where job j is shared by two rows of the
// workspace; in a fixed order. 32 words a block, 8 threads a word.
#include "device.h"

constexpr int WORDS = 32, SHARES = 8;

KERNEL(WORDS * SHARES, 1)
sum_parts(const float* __restrict__ parts, const int* __restrict__ twins, float* __restrict__ total, int count, int rows, int words) {
  SHARED_MEMORY(memory);
  float* shares = (float*)memory;
  int word = blockIdx.x * WORDS + threadIdx.x % WORDS, share = threadIdx.x / WORDS, row = blockIdx.y;
  float sum = 0.f;
  if (word < words)
    for (int from = row; from >= 0; from = from == row ? twins[row] : -1)
#pragma unroll 8
      for (int s = share; s < count; s += SHARES) sum += parts[((u64)s * rows + from) * words + word];
  shares[threadIdx.x] = sum;
  __syncthreads();
  if (share || word >= words) return;
  for (int i = 1; i < SHARES; i++) sum += shares[i * WORDS + threadIdx.x];
  total[(u64)row * words + word] = sum;
}
