// Copies to shared memory in pieces as wide as the alignment of the map's rows allows (COPY bytes).
#pragma once
#include "element.h"

DEVICE void copy_piece(char* to, const char* from, bool inside) {
  if constexpr (COPY == 16) copy_async_16(to, from, inside);
  else if constexpr (COPY == 8) copy_async_8(to, from, inside);
  else if constexpr (COPY == 4) copy_async_4(to, from, inside);
  else *(u16*)to = inside ? *(const u16*)from : (u16)0;
}
