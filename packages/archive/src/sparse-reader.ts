// One sparse file while it is read: first its map, wherever that is, then its data region by region.

import {
  faultOf,
  leadingRegions,
  listedRegions,
  MAP_BYTES_MAX,
  oldRegions,
  REGIONS_MAX,
  type Region,
} from './sparse.ts';
import { badTar, readable, readNumber } from './tar-header.ts';
import type { TarEntry, TarSink } from './tar-reader.ts';

export class SparseReader {
  /** Of the archive: data, and a map that is in front of it. */
  readonly storedBytes: number;
  readonly #sink: TarSink;
  readonly #entry: TarEntry;
  readonly #shown: string;
  #regions: Region[] = [];
  #extended = false;
  /** As much of a map in the data as has come; undefined once it is known. */
  #map: Buffer | undefined = Buffer.alloc(0);
  /** Which region the next data belongs to, and how much of that has come. */
  #at = 0;
  #done = 0;

  /** Raises data_loss for a sink that takes no sparse files. */
  constructor(sink: TarSink, file: { readonly entry: TarEntry; readonly storedBytes: number }) {
    this.#sink = sink;
    this.#entry = file.entry;
    this.storedBytes = file.storedBytes;
    this.#shown = JSON.stringify(readable(file.entry.name));
    if (sink.seek === undefined) throw badTar(`${this.#shown} is a sparse file`);
  }

  /** The next block of the archive has more regions. */
  get isExtended(): boolean {
    return this.#extended;
  }

  takeOldRegions(block: Buffer, where: 'header' | 'extension'): void {
    const { regions, more } = oldRegions(block, where, (offset) => readNumber(block, offset, 12));
    this.#regions.push(...regions);
    if (this.#regions.length > REGIONS_MAX) throw badTar(`${this.#shown} has too many regions`);
    this.#extended = more;
    if (!more) this.#begin(this.#regions, this.storedBytes);
  }

  /** The map of an extended header; without one it is in front of the data. */
  takeMap(map: Buffer | undefined): void {
    if (map !== undefined) this.#begin(listedRegions(map.toString('latin1')), this.storedBytes);
  }

  takeData(piece: Uint8Array): void {
    let data = piece;
    if (this.#map !== undefined) {
      const map = Buffer.concat([this.#map, piece]);
      if (map.length > MAP_BYTES_MAX) throw badTar(`${this.#shown} has too long a map`);
      this.#map = map;
      const leading = leadingRegions(map);
      if (leading === undefined) return;
      data = map.subarray(leading.mapBytes);
      this.#begin(leading.regions, this.storedBytes - leading.mapBytes);
    }
    while (data.length > 0) {
      const region = this.#regions[this.#at];
      if (region === undefined) throw badTar(`${this.#shown} has more data than regions`);
      if (this.#done === 0) this.#sink.seek?.(region.offset);
      const part = data.subarray(0, region.bytes - this.#done);
      this.#sink.data(part);
      data = data.subarray(part.length);
      this.#done += part.length;
      if (this.#done < region.bytes) continue;
      this.#at += 1;
      this.#done = 0;
    }
  }

  /** All that is stored has come. Raises data_loss when that was not even the map. */
  end(): void {
    if (this.#map !== undefined) throw badTar(`the map of ${this.#shown} is cut`);
  }

  #begin(regions: readonly Region[] | undefined, dataBytes: number): void {
    if (regions === undefined) throw badTar(`${this.#shown} has a broken map`);
    const realBytes = this.#entry.sizeBytes;
    const fault = faultOf(regions, { realBytes, storedBytes: dataBytes });
    if (fault !== undefined) throw badTar(`${this.#shown} ${fault}`);
    this.#regions = regions.filter(({ bytes }) => bytes > 0);
    this.#map = undefined;
    this.#sink.entry(this.#entry);
  }
}
